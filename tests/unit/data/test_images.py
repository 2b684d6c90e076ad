from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.data.images import read_image, read_mask
from edgekd.errors import DataError

RAMP = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)  # (2, 3)
COLOR = np.stack([RAMP, RAMP + 1, RAMP + 2], axis=-1)  # (2, 3, 3)


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png(path: Path, size: tuple[int, int], bit_depth: int, color_type: int, rows: list[bytes]) -> Path:
    """Write a PNG by hand, from its specification, for the kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bit_depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def refusal(read: object, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)  # type: ignore[operator]
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_mask_that_a_tiff_keeps_as_jpeg_is_refused(tmp_path: Path):
    assert "lost its exact labels" in refusal(read_mask, saved(tmp_path / "m.tif", RAMP, compression="jpeg"))
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "z.tif", RAMP, compression="tiff_lzw")), RAMP)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_rgb_is_read_as_it_is(tmp_path: Path, suffix: str):
    np.testing.assert_array_equal(read_image(saved(tmp_path / f"i.{suffix}", COLOR)), COLOR)


def test_grayscale_becomes_three_equal_channels(tmp_path: Path):
    np.testing.assert_array_equal(read_image(saved(tmp_path / "i.png", RAMP)), np.stack([RAMP] * 3, axis=-1))


def test_one_bit_image_becomes_black_and_white(tmp_path: Path):
    bits = np.array([[True, False]])
    assert read_image(saved(tmp_path / "i.png", bits))[0].tolist() == [[255, 255, 255], [0, 0, 0]]


def test_palette_image_becomes_its_colours(tmp_path: Path):
    image = Image.fromarray(np.array([[1, 0]], np.uint8), mode="P")
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png")[0].tolist() == [[200, 100, 50], [9, 8, 7]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_is_dropped(tmp_path: Path, mode: str):
    path = saved(tmp_path / "i.png", COLOR if mode == "RGBA" else RAMP, mode)
    np.testing.assert_array_equal(read_image(path), COLOR if mode == "RGBA" else np.stack([RAMP] * 3, axis=-1))


def test_transparent_pixels_are_refused(tmp_path: Path):
    clear = np.dstack([COLOR, np.array([[255, 255, 255], [255, 254, 255]], np.uint8)])
    assert "transparent" in refusal(read_image, saved(tmp_path / "i.png", clear))


def test_transparent_palette_entry_that_is_used_is_refused(tmp_path: Path):
    image = Image.fromarray(np.array([[1, 0]], np.uint8), mode="P")
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.save(tmp_path / "i.png", transparency=1)
    assert "transparent" in refusal(read_image, tmp_path / "i.png")


def test_sixteen_bit_gray_image_is_refused_with_the_conversion(tmp_path: Path):
    message = refusal(read_image, saved(tmp_path / "i.png", RAMP.astype(np.uint16) * 257))
    assert "expected 8" in message
    assert "-depth 8" in message


def test_sixteen_bit_rgb_png_is_refused_although_pillow_calls_it_rgb(tmp_path: Path):
    path = png(tmp_path / "i.png", (2, 1), 16, 2, [struct.pack(">6H", 1, 2, 3, 4, 5, 6)])
    assert Image.open(path).mode == "RGB"
    assert "more than 8 bits" in refusal(read_image, path)


def test_sixteen_bit_ppm_is_refused(tmp_path: Path):
    (tmp_path / "i.ppm").write_bytes(b"P6 1 1 65535\n" + struct.pack(">3H", 1, 2, 3))
    assert "more than 8 bits" in refusal(read_image, tmp_path / "i.ppm")


def test_cmyk_is_refused(tmp_path: Path):
    assert "CMYK" in refusal(read_image, saved(tmp_path / "i.jpg", COLOR, "CMYK"))


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_animation_is_refused(tmp_path: Path, read: object):
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP.T.copy())]
    frames[0].save(tmp_path / "i.tif", save_all=True, append_images=frames[1:])
    assert "more than one frame" in refusal(read, tmp_path / "i.tif")


# EXIF orientation -> numpy operation that makes the stored array upright. Source: EXIF 2.32, tag 274.
UPRIGHT = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_turns_images_and_masks_alike(tmp_path: Path, suffix: str):
    for orientation, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[274] = orientation
        path = saved(tmp_path / f"{orientation}.{suffix}", RAMP, exif=exif)
        np.testing.assert_array_equal(read_mask(path), upright(RAMP))
        np.testing.assert_array_equal(read_image(path)[..., 0], upright(RAMP))


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_truncated_file_is_refused_by_name(tmp_path: Path, read: object, suffix: str):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    path = saved(tmp_path / f"i.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refusal(read, path)


def test_truncated_jpeg_is_refused(tmp_path: Path):
    path = saved(tmp_path / "i.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in refusal(read_image, path)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_empty_text_missing_and_folder_are_refused(tmp_path: Path, read: object):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    assert "not an image" in refusal(read, tmp_path / "empty.png")
    assert "not an image" in refusal(read, tmp_path / "text.png")
    assert "no such file" in refusal(read, tmp_path / "absent.png")
    assert "is a folder" in refusal(read, tmp_path)


def test_decompression_bomb_is_refused(tmp_path: Path):
    assert "too many pixels" in refusal(read_image, png(tmp_path / "i.png", (60000, 60000), 8, 0, [b"\0"]))


def test_palette_mask_gives_indices_not_colours(tmp_path: Path):
    image = Image.fromarray(np.array([[1, 0, 255]], np.uint8), mode="P")
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[1, 0, 255]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_mask_of_few_bits_gives_indices(tmp_path: Path, bits: int):
    image = Image.fromarray(np.array([[1, 0, 1]], np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "m.png", bits=bits)
    assert read_mask(tmp_path / "m.png").tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("bits", "row", "labels"),
    [(1, b"\xa0", [1, 0, 1, 0]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x03\x7f", [0, 3, 7, 15])],
)
def test_grayscale_mask_of_few_bits_is_not_stretched_to_255(tmp_path: Path, bits: int, row: bytes, labels: list[int]):
    assert read_mask(png(tmp_path / "m.png", (4, 1), bits, 0, [row])).tolist() == [labels]


def test_sixteen_bit_mask_keeps_its_values(tmp_path: Path):
    mask = read_mask(saved(tmp_path / "m.png", np.array([[0, 300, 65535]], np.uint16)))
    assert mask.dtype == np.int32
    assert mask.tolist() == [[0, 300, 65535]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_coded_mask_is_refused(tmp_path: Path, mode: str):
    assert "class indices" in refusal(read_mask, saved(tmp_path / "m.png", COLOR, mode))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_mask_of_three_equal_channels_is_one_of_indices(tmp_path: Path, mode: str):
    mask = read_mask(saved(tmp_path / "m.png", np.stack([RAMP] * 3, axis=-1), mode))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, RAMP)


def test_a_mask_of_colours_names_them_by_their_share(tmp_path: Path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = (128, 64, 128)
    pixels[1, 0] = (1, 2, 3)
    message = refusal(read_mask, saved(tmp_path / "m.png", pixels))
    assert "mask in colours (#000000, #804080, #010203)" in message
    assert "data.options.colors of format `folder` or `voc`" in message


def test_a_mask_of_fractions_is_refused(tmp_path: Path):
    path = tmp_path / "m.tif"
    Image.fromarray(RAMP.astype(np.float32), mode="F").save(path)
    assert "mask of fractions (32-bit float)" in refusal(read_mask, path)


def bands_tiff(bands: int, bits: int = 8, order: str = "<") -> bytes:
    """Return a TIFF of one 4x4 strip with that many bands, written from the TIFF 6.0 specification."""
    start = 8 + 2 + 12 * 10 + 4
    tags = [(256, 4), (257, 4), (258, start), (259, 1), (262, 1), (273, start + 2 * bands), (277, bands), (278, 4)]
    tags += [(279, 16 * bands * bits // 8), (284, 1)]
    body = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value)
        if tag != 258
        else struct.pack(f"{order}HHII", tag, 3, bands, value)
        for tag, value in tags
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 10)
    return head + body + bytes(4) + struct.pack(f"{order}{bands}H", *[bits] * bands) + bytes(16 * bands * bits // 8)


@pytest.mark.parametrize(("bands", "bits", "order"), [(5, 8, "<"), (8, 16, ">"), (12, 8, "<")])
def test_a_tiff_of_many_bands_is_told_as_one(tmp_path: Path, bands: int, bits: int, order: str):
    (tmp_path / "i.tif").write_bytes(bands_tiff(bands, bits, order))
    for read in (read_image, read_mask):
        assert f"TIFF of {bands} bands of {bits} bits" in refusal(read, tmp_path / "i.tif")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"<!DOCTYPE html><html>", "HTML or XML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"II*\0\xff\xff\xff\x7f", "not an image, or damaged"),
        (b"II*\0", "not an image, or damaged"),
    ],
)
def test_files_that_people_take_for_images_are_told_as_what_they_are(tmp_path: Path, content: bytes, expected: str):
    (tmp_path / "i.png").write_bytes(content)
    for read in (read_image, read_mask):
        assert expected in refusal(read, tmp_path / "i.png")


def test_mask_with_opaque_alpha_gives_labels_and_with_transparency_is_refused(tmp_path: Path):
    opaque = np.dstack([RAMP, np.full_like(RAMP, 255)])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", opaque)), RAMP)
    assert "transparent" in refusal(read_mask, saved(tmp_path / "t.png", np.dstack([RAMP, RAMP])))


def test_jpeg_mask_is_refused_as_lossy(tmp_path: Path):
    assert "export it as PNG" in refusal(read_mask, saved(tmp_path / "m.jpg", RAMP))


def test_pgm_mask_that_would_be_rescaled_is_refused(tmp_path: Path):
    (tmp_path / "m.pgm").write_bytes(b"P5 2 1 10\n\x01\x02")
    (tmp_path / "ok.pgm").write_bytes(b"P5 2 1 255\n\x01\x02")
    assert "rescaled" in refusal(read_mask, tmp_path / "m.pgm")
    assert read_mask(tmp_path / "ok.pgm").tolist() == [[1, 2]]


def test_white_is_zero_tiff_mask_is_refused(tmp_path: Path):
    path = saved(tmp_path / "m.tif", RAMP, tiffinfo={262: 0})  # PhotometricInterpretation
    assert "white stored as zero" in refusal(read_mask, path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_array_or_one_line(tmp_path: Path, data: st.DataObject):
    suffix = data.draw(st.sampled_from(["png", "jpg", "bmp", "gif", "webp", "ppm"]))
    path = saved(tmp_path / f"i.{suffix}", COLOR)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (read_image, read_mask):
        try:
            assert read(path).dtype in (np.uint8, np.int32)
            continue
        except DataError as exc:
            message = str(exc)
        assert str(path) in message
        assert "\n" not in message

"""Images come out of every decoder as `edgekd predict` reads them, and headers are believed before pixels are decoded."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.images import read_image as host_read
from edgekd.errors import FrameError
from edgekd.runner import images
from edgekd.runner.headers import read_header
from edgekd.runner.images import READERS, decode_image, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
needs_ffmpeg = pytest.param("ffmpeg", marks=pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here"))


def saved(image: Image.Image, kind: str, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


def smooth() -> Image.Image:
    rows, columns = np.mgrid[0:24, 0:32]
    return Image.fromarray(np.stack([rows * 10, columns * 7, rows + columns], 2).astype(np.uint8))


@pytest.mark.parametrize("reader", ["Pillow", "OpenCV", needs_ffmpeg])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_decoder_turns_pictures_upright_as_predict_does(
    reader: str, kind: str, orientation: int, tmp_path: Path
) -> None:
    data = saved(smooth(), kind, orientation, **({"subsampling": 0, "quality": 95} if kind == "JPEG" else {}))
    file = tmp_path / f"x.{kind.lower()}"
    file.write_bytes(data)
    expected = host_read(file)
    header = read_header(data, "x")
    assert header is not None
    assert header.orientation == orientation
    found = READERS[reader](data, "x", header, 10**6)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("reader", ["Pillow", "OpenCV", needs_ffmpeg])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_every_decoder_reads_gray_palette_and_opaque_pictures_alike(reader: str, mode: str, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    smooth().convert(mode).save(file)
    data = file.read_bytes()
    header = read_header(data, "x")
    assert header is not None
    np.testing.assert_array_equal(READERS[reader](data, "x", header, 10**6), host_read(file))


@pytest.mark.parametrize("reader", ["Pillow", "OpenCV", needs_ffmpeg])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (saved(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"), "bits per channel"),
        (saved(Image.fromarray(np.zeros((8, 8, 4), np.uint8)), "PNG"), "transparent"),
        (saved(smooth().convert("CMYK"), "JPEG"), "JPEG of 4 channels|colour mode CMYK"),
        (saved(Image.fromarray(PIXELS), "JPEG")[:-200], "damaged or truncated"),
        (saved(Image.fromarray(PIXELS), "PNG")[:-200], "damaged or truncated"),
    ],
    ids=["16 bit", "transparent", "CMYK", "truncated JPEG", "truncated PNG"],
)
def test_every_decoder_refuses_what_predict_refuses(reader: str, data: bytes, says: str) -> None:
    header = read_header(data, "x.png")
    assert header is not None
    with pytest.raises(FrameError, match=says) as failed:
        READERS[reader](data, "x.png", header, 10**6)
    assert "\n" not in str(failed.value)


def test_ppm_and_npy_need_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "AVAILABLE", {})
    np.save(tmp_path / "x.npy", PIXELS)
    (tmp_path / "x.ppm").write_bytes(b"P6\n# a comment\n32 24\n255\n" + PIXELS.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "x.npy"), PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / "x.ppm"), PIXELS)
    (tmp_path / "x.pgm").write_bytes(b"P5 32 24 255\n" + PIXELS[..., 0].tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "x.pgm"), PIXELS[..., :1].repeat(3, 2))
    with pytest.raises(
        FrameError, match=r"nothing on this machine decodes PNG; install Pillow \(`apt install python3-pil`"
    ):
        decode_image(saved(smooth(), "PNG"), "x.png")


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        png_that_claims(60_000, 60_000),
        b"P6 100000 100000 255\n" + bytes(100),
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 3), }".ljust(0x76),
    ],
    ids=["png", "ppm", "npy"],
)
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(data: bytes) -> None:
    with pytest.raises(FrameError, match="claims .* pixels, expected at most 50000000"):
        decode_image(data, "x")


@pytest.mark.parametrize("reader", ["Pillow", "OpenCV", needs_ffmpeg])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_second_header_that_claims_more_than_the_first_is_refused(reader: str, kind: str) -> None:
    large = png_that_claims(30_000, 30_000)
    if kind == "png":
        data = png_that_claims(8, 8)[:33] + large[8:]
    else:
        data = saved(smooth(), "JPEG")
        at = data.index(b"\xff\xc0")
        second = data[at : at + 5] + struct.pack(">HH", 60_000, 60_000) + data[at + 9 : at + 19]
        data = data[: at + 19] + second + data[at + 19 :]
    header = read_header(data, "x")
    assert header is not None
    assert header.width <= 32
    with pytest.raises(FrameError, match="claims|damaged"):
        READERS[reader](data, "x", header, 10**6)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\xff\xff",
        b"\x89PNG\r\n\x1a\n",
        b"P6 4 4 65535\n" + bytes(96),
        b"P6 4",
        b"P6" + b" " * 4000 + b"x",
        b"P6" + b"#\n" * 2000,
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\x06\x00[[[[[[",
        b"\x93NUMPY\x01\x00\x3e\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 4, 3), }".ljust(0x3E),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FrameError) as failed:
        decode_image(data, "x")
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_array_of_another_length_than_it_says_is_refused(change: int) -> None:
    file = io.BytesIO()
    np.save(file, PIXELS)
    data = file.getvalue()
    with pytest.raises(FrameError, match="expected 2304 bytes of pixels, got 230[35]"):
        decode_image(data[:-1] if change < 0 else data + b"\0", "x.npy")

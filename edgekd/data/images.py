"""Readers of image and mask files: arrays with the stored meaning, or a DataError of one line.

Rules for images: EXIF orientation applied; grayscale, 1-bit, palette and opaque RGBA become RGB. Refused: transparent
pixels (their background is undefined), more than 8 bits per channel (the user has to choose the range), CMYK and other
colour spaces, animations.

Rules for masks: the stored sample is the label. Palette files give indices, 1-, 2- and 4-bit grayscale is not
stretched to 0..255 as viewers do, 16-bit stays 16-bit, three equal channels are one. Refused: JPEG (lossy), transparency,
animations. Colour-coded masks need `read_color_mask` and their colours.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edgekd.errors import DataError, one_line

# The exceptions of Pillow's decoders on damaged bytes, beside UnidentifiedImageError (an OSError).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _TIFF_LONG = 258, 277, 4  # TIFF 6.0, section 2 and tags
_EIGHT_BIT = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
# Pillow stretches 2- and 4-bit grayscale to 0..255 by these factors (its raw modes "L;2", "L;4").
_STRETCH = {"L;2": 85, "L;4": 17}


def read_image(path: Path | str) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: the file is missing, damaged or truncated, not an image, too large to be one, animated,
            transparent, more than 8 bits per channel, or in another colour space than gray, palette or RGB.
    """
    return _rgb(path, *_decode(Path(path)))


def _rgb(path: Path | str, image: Image.Image, raw_mode: str) -> np.ndarray:
    _check_mode(path, image.mode, raw_mode)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.array(image.getchannel("A")).min() < 255:
            raise DataError(
                f"{path}: has transparent pixels, expected an opaque image; flatten it onto a background, "
                "e.g. `magick IN -background black -flatten OUT`"
            )
    return np.array(image.convert("RGB"))


def upright_size(path: Path) -> tuple[int, int]:
    """Return the upright (height, width) of an image, from its header alone.

    Raises:
        DataError: the file is missing, damaged at its start, or not an image.
    """
    with _opened(path) as (image, _):
        return _upright_size(image)


def stored_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image from its header alone, 1 (upright) where it has none; errors as `upright_size`."""
    with _opened(path) as (image, _):
        return _orientation(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = _orientation(image) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    # Pillow's getexif decodes a whole PNG without EXIF, to look for EXIF after the pixels.
    known = image.format != "PNG" or "exif" in image.info
    return int(image.getexif().get(_ORIENTATION, 1)) if known else 1


def read_mask(path: Path | str) -> np.ndarray:
    """Read the stored labels of a mask file as (H, W), uint8 or, for 16-bit files, int32; EXIF orientation applied.

    Raises:
        DataError: the file is missing, damaged or truncated, not an image, animated, colour-coded, lossy,
            transparent, or stores labels inexactly.
    """
    image, raw_mode = _decode(Path(path))
    _check_lossless(path, image)
    _check_index_mode(path, image.mode, raw_mode)
    if image.mode in ("RGB", "RGBA"):
        return _one_channel(path, _rgb(path, image, raw_mode))
    if image.mode in ("LA", "PA"):
        array = np.array(image)  # (H, W, 2): label, alpha
        if array[..., 1].min() < 255:
            raise DataError(f"{path}: the mask has transparent pixels; save the labels without an alpha channel")
        return array[..., 0]
    if image.mode.startswith("I"):
        return np.array(image).astype(np.int32)
    labels = np.array(image).astype(np.uint8)
    return labels // np.uint8(_STRETCH[raw_mode]) if raw_mode in _STRETCH else labels


def _check_index_mode(path: Path | str, mode: str, raw_mode: str) -> None:
    if mode in ("RGB", "RGBA"):
        return _check_mode(path, mode, raw_mode)
    if mode not in ("1", "L", "P", "LA", "PA", "I") and not mode.startswith("I;16"):
        what = "of fractions (32-bit float)" if mode == "F" else f"of mode {mode}"
        raise DataError(f"{path}: mask {what}, expected one channel of class indices; save a grayscale or palette PNG")
    if mode in ("1", "L") and "I" in raw_mode.partition(";")[2]:
        raise DataError(f"{path}: TIFF with white stored as zero, which inverts the labels; save the mask as PNG")


def _one_channel(path: Path | str, rgb: np.ndarray) -> np.ndarray:
    """Return the labels (H, W) of a mask whose three channels are equal; DataError for a mask in colours."""
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    colors, counts = np.unique(_packed(rgb), return_counts=True)
    most = ", ".join(f"#{colors[i]:06x}" for i in np.argsort(-counts, kind="stable")[:4])
    raise DataError(
        f"{path}: mask in colours ({most}{', ...' * (len(colors) > 4)}), expected one channel of class indices; "
        f'name the colours in data.options.colors of format `folder` or `voc`, e.g. {{"#{colors[0]:06x}": background}}, or '
        "save a grayscale or palette PNG"
    )


def _packed(rgb: np.ndarray) -> np.ndarray:
    """Return 0xRRGGBB (H, W) int64 of colours (H, W, 3)."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), 2, 0)
    return red << 16 | green << 8 | blue


def read_color_mask(path: Path | str, colors: np.ndarray) -> np.ndarray:
    """Read a colour-coded mask: (H, W) int64 indices into `colors`, (N,) int 0xRRGGBB in ascending order.

    Raises:
        DataError: as `read_mask`, or a pixel has another colour.
    """
    image, raw_mode = _decode(Path(path))
    _check_lossless(path, image)
    packed = _packed(_rgb(path, image, raw_mode))
    indices = np.minimum(np.searchsorted(colors, packed), len(colors) - 1)
    unknown, counts = np.unique(packed[colors[indices] != packed], return_counts=True)
    if len(unknown):
        more = f" (and {len(unknown) - 1} more such colours)" if len(unknown) > 1 else ""
        on = f"{counts[0]} pixel{'s' if counts[0] > 1 else ''}{more}"
        raise DataError(
            f"{path}: colour #{unknown[0]:06x} on {on} is none of the {len(colors)} of data.options.colors; "
            "add it, or save the mask without smoothing"
        )
    return indices


def _check_lossless(path: Path | str, image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        raise DataError(f"{path}: a JPEG mask has lost its exact labels, expected a lossless file; export it as PNG")


def _check_mode(path: Path | str, mode: str, raw_mode: str) -> None:
    if ";16" in raw_mode or mode.startswith(("I", "F")):
        raise DataError(
            f"{path}: more than 8 bits per channel (mode {raw_mode}), expected 8; "
            "choose the range to keep and convert, e.g. `magick IN -auto-level -depth 8 OUT`"
        )
    if mode not in _EIGHT_BIT:
        raise DataError(f"{path}: colour mode {mode}, expected RGB, grayscale or palette; convert it to RGB")


def _decode(path: Path) -> tuple[Image.Image, str]:
    """Return the decoded, upright image and the raw mode of the file, which tells bit depths that Pillow hides."""
    with _opened(path) as (image, raw_mode):
        image.load()
        upright = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
        upright.format = image.format
        return upright, raw_mode


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFile.ImageFile, str]]:
    """Give an image of one frame, not yet decoded, and its raw mode; whatever is wrong with the file is a DataError.

    The block must only read the image: its errors become the file's.
    """
    try:
        # Opened by us: given a path, Pillow (13.0.0, at least) maps uncompressed one-channel TIFFs into memory with
        # height and width swapped where an EXIF orientation turns them (its pull request 8390), which scrambles the
        # pixels. Delete when test_exif_orientation_turns_images_and_masks_alike[tif] passes without it.
        with path.open("rb") as file, Image.open(file) as image:
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a photo with previews behind it
                raise DataError(f"{path}: more than one frame or page in the file, expected one image; split it")
            yield image, _raw_mode(image, path)
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file") from exc
    except IsADirectoryError as exc:
        raise DataError(f"{path}: is a folder, expected an image file") from exc
    except UnidentifiedImageError as exc:
        raise DataError(f"{path}: {_what_it_is(path)}") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise DataError(f"{path}: its header claims too many pixels ({exc}); cut it into tiles") from exc
    except _DAMAGE as exc:
        raise DataError(f"{path}: damaged or truncated ({one_line(exc)}); replace the file or remove it") from exc


def _raw_mode(image: ImageFile.ImageFile, path: Path) -> str:
    """Return the storage mode of the samples, e.g. `RGB;16B` where Pillow's mode is only `RGB`."""
    args = image.tile[0][3] if image.tile else image.mode
    parts = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM" and len(parts) == 2 and parts[1] not in (255, 65535):
        raise DataError(f"{path}: PGM/PPM with maximum {parts[1]} would be rescaled, expected 255; save it as PNG")
    if image.format == "PPM" and image.mode == "RGB" and 65535 in parts:
        return "RGB;16B"
    return next((str(part) for part in parts if isinstance(part, str)), image.mode)


# The first bytes of files that people take for images, and what to do about them.
_NO_IMAGES = (
    (b"version https://git-lfs", "a Git LFS pointer, and not the image; run `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array (.npy), expected an image; save it as PNG"),
    (b"%PDF", "a PDF, expected an image; render its pages as PNG"),
    (b"<", "text (HTML or XML), expected an image; download it again"),
)


def _what_it_is(path: Path) -> str:
    """Return the kind of a file that Pillow does not know, and the remedy."""
    start, bands = b"", ""
    with contextlib.suppress(OSError, struct.error), path.open("rb") as file:
        start = file.read(32)
        bands = _tiff_bands(file, start)
    if bands:
        return (
            f"TIFF of {bands}, expected 1 (gray) or 3 (RGB) bands of 8 bits; choose three, e.g. "
            "`gdal_translate -of PNG -b 3 -b 2 -b 1 IN OUT`"
        )
    if start[4:8] == b"ftyp":
        return "a HEIC or AVIF photo or a video, expected an image; convert it to JPEG or PNG"
    known = next((what for magic, what in _NO_IMAGES if start.startswith(magic)), "")
    return known or "not an image, or damaged at its start; replace the file or remove it"


def _tiff_bands(file: BinaryIO, start: bytes) -> str:
    """Return the number and the bits of the bands in a TIFF's first directory, "" for other files.

    Raises:
        struct.error: the directory is damaged.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(start[:4])
    if order is None:
        return ""
    file.seek(struct.unpack_from(f"{order}I", start, 4)[0])
    (count,) = struct.unpack(f"{order}H", file.read(2))
    entries = file.read(12 * count)
    tags = {struct.unpack_from(f"{order}H", entries, 12 * i)[0]: 12 * i for i in range(count)}
    if not {_SAMPLES_PER_PIXEL, _BITS_PER_SAMPLE} <= tags.keys():
        return ""
    kind, bands = struct.unpack_from(f"{order}2xH4xH", entries, tags[_SAMPLES_PER_PIXEL])
    if kind == _TIFF_LONG:
        (bands,) = struct.unpack_from(f"{order}8xI", entries, tags[_SAMPLES_PER_PIXEL])
    many, place = struct.unpack_from(f"{order}4xII", entries, tags[_BITS_PER_SAMPLE])
    (bits,) = struct.unpack_from(f"{order}8xH", entries, tags[_BITS_PER_SAMPLE])
    if many > 2:  # the values do not fit into the entry, which has their place
        file.seek(place)
        (bits,) = struct.unpack(f"{order}H", file.read(2))
    return f"{bands} bands of {bits} bits"

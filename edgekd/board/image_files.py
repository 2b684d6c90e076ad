"""Reads image files by Pillow: (H, W, 3) uint8 RGB, or a DataError of one line.

Rules: EXIF orientation applied; grayscale, 1-bit, palette and opaque RGBA become RGB. Refused: transparent pixels (their
background is undefined), more than 8 bits per channel (the user has to choose the range), CMYK and other colour spaces,
animations.

Portable: standard library + numpy at import, Python 3.8; Pillow where an image is read.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, Optional, Tuple, Union

import numpy as np

from edgekd.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL import Image

# The exceptions of Pillow's decoders on damaged bytes, beside UnidentifiedImageError (an OSError).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _TIFF_LONG = 258, 277, 4  # TIFF 6.0, section 2 and tags
_EIGHT_BIT = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
Name = Union[Path, str]


def read_rgb(path: Name) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: the file is missing, damaged or truncated, not an image, too large to be one, animated,
            transparent, more than 8 bits per channel, or in another colour space than gray, palette or RGB.
    """
    return to_rgb(path, *decode(Path(path)))


def rgb_of(data: bytes, name: str, most_pixels: int) -> np.ndarray:
    """Read the content of an image file as `read_rgb` does; DataError also when it has more than `most_pixels`."""
    with opened(name, data) as (image, _):
        if image.width * image.height > most_pixels:
            raise DataError(
                f"{name}: claims {image.width}x{image.height} pixels, expected at most {most_pixels}; cut it into tiles"
            )
    return to_rgb(name, *decode(name, data))


def to_rgb(path: Name, image: Image.Image, raw_mode: str) -> np.ndarray:
    """Return a decoded image as (H, W, 3) uint8 RGB; DataError for a mode that has no such picture."""
    check_mode(path, image.mode, raw_mode)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.array(image.getchannel("A")).min() < 255:
            raise DataError(
                f"{path}: has transparent pixels, expected an opaque image; flatten it onto a background, "
                "e.g. `magick IN -background black -flatten OUT`"
            )
    return np.array(image.convert("RGB"))


def check_mode(path: Name, mode: str, raw_mode: str) -> None:
    """Refuse colour modes other than gray, palette and RGB of 8 bits; DataError."""
    if ";16" in raw_mode or mode.startswith(("I", "F")):
        raise DataError(
            f"{path}: more than 8 bits per channel (mode {raw_mode}), expected 8; "
            "choose the range to keep and convert, e.g. `magick IN -auto-level -depth 8 OUT`"
        )
    if mode not in _EIGHT_BIT:
        raise DataError(f"{path}: colour mode {mode}, expected RGB, grayscale or palette; convert it to RGB")


def decode(path: Name, data: Optional[bytes] = None) -> Tuple[Image.Image, str]:
    """Return the decoded, upright image and the raw mode of the file, which tells bit depths that Pillow hides."""
    from PIL import ImageOps

    with opened(path, data) as (image, raw_mode):
        image.load()
        upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
        upright.format = image.format
        return upright, raw_mode


@contextlib.contextmanager
def opened(path: Name, data: Optional[bytes] = None) -> Iterator[Tuple[Any, str]]:
    """Yield a single-frame image, not yet decoded, and its raw mode; DataError for any fault of the file.

    The block must only read the image: its errors become the file's. `data` is the file's content where it is no file.
    """
    from PIL import Image, UnidentifiedImageError

    def stream() -> BinaryIO:
        return open(str(path), "rb") if data is None else io.BytesIO(data)

    try:
        # Opened by us: given a path, Pillow (13.0.0, at least) maps uncompressed one-channel TIFFs into memory with
        # height and width swapped where an EXIF orientation turns them (its pull request 8390), which scrambles the
        # pixels. Delete when test_exif_orientation_turns_images_and_masks_alike[tif] passes without it.
        with stream() as file, Image.open(file) as image:
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a photo with previews behind it
                raise DataError(f"{path}: more than one frame or page in the file, expected one image; split it")
            yield image, _raw_mode(image, path)
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file") from exc
    except IsADirectoryError as exc:
        raise DataError(f"{path}: is a folder, expected an image file; give a file in it") from exc
    except UnidentifiedImageError as exc:
        with stream() as file:
            raise DataError(f"{path}: {_what_it_is(file)}") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise DataError(f"{path}: its header claims too many pixels ({exc}); cut it into tiles") from exc
    except _DAMAGE as exc:
        raise DataError(f"{path}: damaged or truncated ({one_line(exc)}); replace the file or remove it") from exc


def _raw_mode(image: Any, path: Name) -> str:
    """Return the storage mode of the samples, e.g. `RGB;16B` where Pillow's mode is only `RGB`."""
    args = image.tile[0][3] if image.tile else image.mode
    parts = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM" and len(parts) == 2 and parts[1] not in (255, 65535):
        raise DataError(f"{path}: PGM/PPM with maximum {parts[1]} would be rescaled, expected 255; save it as PNG")
    if image.format == "PPM" and image.mode == "RGB" and 65535 in parts:
        return "RGB;16B"
    return next((str(part) for part in parts if isinstance(part, str)), image.mode)


# First bytes of common files that are not images, and the remedy for each.
_NO_IMAGES = (
    (b"version https://git-lfs", "a Git LFS pointer, and not the image; run `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array (.npy), expected an image; save it as PNG"),
    (b"%PDF", "a PDF, expected an image; render its pages as PNG"),
    (b"<", "text (HTML or XML), expected an image; download it again"),
)


def _what_it_is(file: BinaryIO) -> str:
    """Return the kind of a file that Pillow does not know, and the remedy."""
    start, bands = b"", ""
    with contextlib.suppress(OSError, struct.error):
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

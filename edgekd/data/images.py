"""Readers of image and mask files: arrays with the stored meaning, or a DataError of one line.

Rules for images: EXIF orientation applied; grayscale, 1-bit, palette and opaque RGBA become RGB. Refused: transparent
pixels (their background is undefined), more than 8 bits per channel (the user has to choose the range), CMYK and other
colour spaces, animations.

Rules for masks: the stored sample is the label. Palette files give indices, 1-, 2- and 4-bit grayscale is not
stretched to 0..255 as viewers do, 16-bit stays 16-bit. Refused: JPEG (lossy), transparency, animations. Colour-coded masks
need `read_color_mask` and their colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edgekd.errors import DataError, one_line

# The exceptions of Pillow's decoders on damaged bytes, beside UnidentifiedImageError (an OSError).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_ORIENTATION = 0x0112  # EXIF tag
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


def check_image(path: Path) -> tuple[int, int]:
    """Check an image's header without decoding pixels, and return its (height, width), upright.

    Raises:
        DataError: as `read_image`, except for damage and transparency beyond the header.
    """
    with _opened(path) as (image, raw_mode):
        _check_mode(path, image.mode, raw_mode)
        return _upright_size(image)


def check_mask(path: Path, in_colors: bool) -> tuple[int, int]:
    """Check a mask's header without decoding pixels, and return its (height, width), upright.

    Raises:
        DataError: as `read_mask` or, for masks in colours, `read_color_mask`, except for damage beyond the header.
    """
    with _opened(path) as (image, raw_mode):
        _check_lossless(path, image)
        if in_colors:
            _check_mode(path, image.mode, raw_mode)
        else:
            _check_index_mode(path, image.mode, raw_mode)
        return _upright_size(image)


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
    if mode not in ("1", "L", "P", "LA", "PA", "I") and not mode.startswith("I;16"):
        raise DataError(
            f"{path}: mask of mode {mode} (colour-coded?), expected one channel of class indices; "
            "name the colours in data.options.colors of format `folder`, or save a grayscale or palette PNG"
        )
    if mode in ("1", "L") and "I" in raw_mode.partition(";")[2]:
        raise DataError(f"{path}: TIFF with white stored as zero, which inverts the labels; save the mask as PNG")


def read_color_mask(path: Path | str, colors: np.ndarray) -> np.ndarray:
    """Read a colour-coded mask: (H, W) int64 indices into `colors`, (N,) int 0xRRGGBB in ascending order.

    Raises:
        DataError: as `read_mask`, or a pixel has another colour.
    """
    image, raw_mode = _decode(Path(path))
    _check_lossless(path, image)
    red, green, blue = np.moveaxis(_rgb(path, image, raw_mode).astype(np.int64), 2, 0)
    packed = red << 16 | green << 8 | blue
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


@contextmanager
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
        raise DataError(f"{path}: not an image, or damaged at its start; replace the file or remove it") from exc
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

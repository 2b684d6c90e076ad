"""Readers of image and mask files: arrays with the stored meaning, or a DataError of one line.

Rules for images: see `board/image_files.py`.

Rules for masks: the stored sample is the label. Palette files give indices, 1-, 2- and 4-bit grayscale is not
stretched to 0..255 as viewers do, 16-bit stays 16-bit, three equal channels are one. Refused: JPEG (lossy), transparency,
animations. Colour-coded masks need `read_color_mask` and their colours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.board.image_files import ORIENTATION, check_mode, decode, opened, read_rgb, to_rgb
from edgekd.errors import DataError

# Pillow stretches 2- and 4-bit grayscale to 0..255 by these factors (its raw modes "L;2", "L;4").
_STRETCH = {"L;2": 85, "L;4": 17}


def read_image(path: Path | str) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, upright; errors as `board.image_files.read_rgb`."""
    return read_rgb(path)


def upright_size(path: Path) -> tuple[int, int]:
    """Return the upright (height, width) of an image, from its header alone.

    Raises:
        DataError: the file is missing, damaged at its start, or not an image.
    """
    with opened(path) as (image, _):
        return _upright_size(image)


def stored_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image from its header alone, 1 (upright) where it has none; errors as `upright_size`."""
    with opened(path) as (image, _):
        return _orientation(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = _orientation(image) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    # Pillow's getexif decodes a whole PNG without EXIF, to look for EXIF after the pixels.
    known = image.format != "PNG" or "exif" in image.info
    return int(image.getexif().get(ORIENTATION, 1)) if known else 1


def read_mask(path: Path | str) -> np.ndarray:
    """Read the stored labels of a mask file as (H, W), uint8 or, for 16-bit files, int32; EXIF orientation applied.

    Raises:
        DataError: the file is missing, damaged or truncated, not an image, animated, colour-coded, lossy,
            transparent, or stores labels inexactly.
    """
    image, raw_mode = decode(Path(path))
    _check_lossless(path, image)
    _check_index_mode(path, image.mode, raw_mode)
    if image.mode in ("RGB", "RGBA"):
        return _one_channel(path, to_rgb(path, image, raw_mode))
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
        return check_mode(path, mode, raw_mode)
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
    image, raw_mode = decode(Path(path))
    _check_lossless(path, image)
    packed = _packed(to_rgb(path, image, raw_mode))
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

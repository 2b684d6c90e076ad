"""Pictures of class maps over the image, with the wrong pixels along true class changes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edgekd.data.base import IGNORE_INDEX
from edgekd.data.colors import overlay, palette
from edgekd.evaluate.boundary import trimap_band
from edgekd.evaluate.definitions import TRIMAP_RADIUS_PX
from edgekd.report.model import Row
from edgekd.report.units import percent

BAND_PX = TRIMAP_RADIUS_PX  # the band of trimap mIoU
# Errors are magenta. When a class has a similar colour they are white: no blend of image and class colour is white.
_MAGENTA, _WHITE = (255, 0, 200), (255, 255, 255)
_ALIKE = 120  # summed difference of the three channels
_ALPHA = 0.6
# The page shows pictures about 380 px wide, twice that on dense screens. More pixels only make the page heavy.
_LONGEST_SIDE = 760
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class Tile:
    """One picture of a row of pictures: data address, caption, and text for readers who cannot see it."""

    title: str
    caption: str
    alt: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """One image of the scored split: image, truth, then the result of each network or engine."""

    name: str
    tiles: tuple[Tile, ...]


def read_pictures(archive: Mapping[str, np.ndarray], rows: Sequence[Row], classes: Sequence[str]) -> Iterator[Picture]:
    """Yield the pictures of `pictures.npz`, with a tile for each row that has a class map of the image."""
    colors = palette(len(classes))
    index = 0
    while f"{index}/image" in archive:
        yield _picture(archive, index, rows, colors)
        index += 1


def boundary_errors(truth: np.ndarray, class_map: np.ndarray, radius: int = BAND_PX) -> tuple[np.ndarray, float | None]:
    """Return the wrong pixels of the band (H, W) bool and their share of the band; None when the band is empty."""
    band = trimap_band(truth, radius, IGNORE_INDEX)
    wrong = band & (class_map != truth)
    return wrong, float(wrong.sum() / band.sum()) if band.any() else None


def error_color(num_classes: int) -> tuple[int, int, int]:
    """Return the RGB colour of boundary errors, unlike the colours of `num_classes` classes."""
    distance = np.abs(palette(num_classes).astype(int) - _MAGENTA).sum(axis=1)
    return _MAGENTA if distance.min() > _ALIKE else _WHITE


def legend(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return (class name, CSS colour) for every class."""
    return [(name, "#" + bytes(color).hex()) for name, color in zip(classes, palette(len(classes)), strict=True)]


def _picture(archive: Mapping[str, np.ndarray], index: int, rows: Sequence[Row], colors: np.ndarray) -> Picture:
    image, truth = archive[f"{index}/image"], archive[f"{index}/truth"]
    name = str(archive[f"{index}/name"])
    labelled = truth != IGNORE_INDEX
    tiles = [
        tile("Image", "input", f"Image {name}", image),
        tile("Truth", "labels", f"True classes of {name}", overlay(image, truth, colors, _ALPHA)),
    ]
    for row in rows:
        if f"{index}/{row.id}" not in archive:
            continue
        class_map = archive[f"{index}/{row.id}"]
        wrong, share = boundary_errors(truth, class_map)
        everywhere = float((class_map != truth)[labelled].mean()) if labelled.any() else None
        along = (
            f"{percent(share)} % of the boundary band wrong" if share is not None else "no class change in the truth"
        )
        caption = f"{along}; {percent(everywhere)} % of all labelled pixels"
        drawn = _with_errors(overlay(image, class_map, colors, _ALPHA), wrong, error_color(len(colors)))
        tiles.append(tile(row.label, caption, f"Classes of {name} by {row.label}: {caption}", drawn))
    return Picture(name, tuple(tiles))


def _with_errors(picture: np.ndarray, wrong: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Return the picture at display size with wrong pixels in the error colour, none of them lost by shrinking."""
    picture = _shrunk(picture)
    factor = _factor(wrong)
    if factor > 1:
        height, width = picture.shape[0] * factor, picture.shape[1] * factor
        cells = wrong[:height, :width].reshape(picture.shape[0], factor, picture.shape[1], factor)
        wrong = np.asarray(cells.any(axis=(1, 3)))
    return np.where(wrong[..., None], np.array(color, np.uint8), picture)


def _factor(pixels: np.ndarray) -> int:
    return max(1, -(-max(pixels.shape[:2]) // _LONGEST_SIDE))


def _shrunk(picture: np.ndarray) -> np.ndarray:
    factor = _factor(picture)
    if factor == 1:
        return picture
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    blocks = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def tile(title: str, caption: str, alt: str, picture: np.ndarray) -> Tile:
    """Return a picture (H, W, 3) uint8 as a tile, no larger than it is shown."""
    picture = _shrunk(picture)
    buffer = io.BytesIO()
    # subsampling=0 keeps one-pixel error marks in colour; Pillow's `optimize` fails on noise (its buffer is too small).
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Tile(title, caption, alt, address, picture.shape[1], picture.shape[0])

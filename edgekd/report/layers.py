"""Pictures of the page as layers over one photo: lossless masks as PNG, boxes as SVG, the photo once as JPEG.

The page stacks the layers, so that predictions, errors and the difference of two networks are views of the same files.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

# The page shows a picture up to 1400 px wide. A mask keeps every pixel up to a Full HD or Cityscapes image.
_LONGEST_PHOTO, _LONGEST_MASK = 1400, 2048
_JPEG_QUALITY = 86


@dataclass(frozen=True)
class Mark:
    """One box of a layer: x, y, width, height in image pixels, CSS colour, and `kind`: `truth`, `found` or `wrong`.

    number: index of the labelled object, so that two networks can be compared; -1 for detections.
    """

    box: tuple[float, float, float, float]
    color: str
    kind: str
    number: int = -1


@dataclass(frozen=True)
class Tile:
    """One view of a picture: the photo, the labels, or the result of a network.

    key: `photo`, `truth`, or the id of the row.
    score: fraction of the image that is right, for choosing the median picture; None for photo and truth.
    mask, errors: data addresses of PNGs over the whole photo; "" without one.
    marks: boxes.
    found: numbers of the labelled objects that were found.
    differences: comparison with each other network of the picture in words, by key.
    """

    key: str
    title: str
    caption: str
    alt: str
    score: float | None = None
    mask: str = ""
    errors: str = ""
    marks: tuple[Mark, ...] = ()
    found: tuple[int, ...] = ()
    differences: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One image of the scored split: photo as data address, height and width in pixels, and its tiles."""

    name: str
    photo: str
    height: int
    width: int
    tiles: tuple[Tile, ...]

    def score(self, key: str) -> float | None:
        """Return the score of a row's tile; None where the row has none."""
        return next((tile.score for tile in self.tiles if tile.key == key), None)


def photo_address(image: np.ndarray) -> str:
    """Return an image (H, W, 3) uint8 as JPEG, no larger than the page shows it."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_PHOTO, _LONGEST_PHOTO))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)  # Pillow's `optimize` fails on noise (its buffer is too small)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def mask_address(indices: np.ndarray, colors: np.ndarray, alpha: Sequence[int]) -> str:
    """Return a map of indices (H, W) uint8 as a palette PNG.

    Args:
        indices: into `colors`.
        colors: (K, 3) uint8 RGB.
        alpha: K opacities, 0 to 255.
    """
    factor = _factor(indices)
    picture = Image.fromarray(indices[::factor, ::factor], "P")
    picture.putpalette(np.ascontiguousarray(colors, np.uint8).tobytes())
    return _png(picture, bytes(alpha))


def errors_address(wrong: np.ndarray) -> str:
    """Return wrong pixels (H, W) bool as an opaque shape that stays visible when the picture is shrunk."""
    factor = _factor(wrong)
    if factor > 1:
        height, width = (-(-side // factor) for side in wrong.shape)
        padded = np.zeros((height * factor, width * factor), bool)
        padded[: wrong.shape[0], : wrong.shape[1]] = wrong
        wrong = np.asarray(padded.reshape(height, factor, width, factor).any(axis=(1, 3)))
    picture = Image.fromarray(wrong.astype(np.uint8), "P")
    picture.putpalette(bytes(6))
    return _png(picture, bytes((0, 255)))


def median_picture(pictures: Sequence[Picture], key: str) -> Picture | None:
    """Return the picture with a row's median score (of two middle ones the worse); None without scores."""
    scored = [(score, picture) for picture in pictures if (score := picture.score(key)) is not None]
    ranked = sorted(scored, key=lambda one: one[0])
    return ranked[(len(ranked) - 1) // 2][1] if ranked else None


def _factor(pixels: np.ndarray) -> int:
    return max(1, -(-max(pixels.shape[:2]) // _LONGEST_MASK))


def _png(picture: Image.Image, alpha: bytes) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=alpha, optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

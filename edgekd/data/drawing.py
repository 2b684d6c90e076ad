"""Objects drawn over images: masks blended, boxes outlined. numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]


def draw_masks(image: np.ndarray, masks: Iterable[np.ndarray], colors: list[Color], alpha: float = 0.45) -> np.ndarray:
    """Return the image (H, W, 3) uint8 with each of the masks, (H, W) bool, blended over it in its colour."""
    drawn = image.astype(np.float32)
    for mask, color in zip(masks, colors, strict=True):
        drawn[mask] = (1 - alpha) * drawn[mask] + alpha * np.array(color, np.float32)
    return np.rint(drawn).astype(np.uint8)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, colors: list[Color], width: int = 2) -> np.ndarray:
    """Return the image (H, W, 3) uint8 with boxes (N, 4) x1, y1, x2, y2 outlined, later ones on top."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for (x1, y1, x2, y2), color in zip(boxes, colors, strict=True):
        left, top = round(float(x1)), round(float(y1))
        pen.rectangle(
            (left, top, max(left, round(float(x2)) - 1), max(top, round(float(y2)) - 1)), outline=color, width=width
        )
    return np.asarray(picture)

"""Objects drawn over images: masks blended, boxes outlined. numpy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from edgekd.board.masks import Masks

Color = tuple[int, int, int]


def draw_masks(image: np.ndarray, masks: Masks, colors: list[Color], alpha: float = 0.45) -> np.ndarray:
    """Return the image (H, W, 3) uint8 with each of the masks blended over it in its colour."""
    drawn = image.astype(np.float32)
    for (x1, y1, x2, y2), part, color in zip(masks.corners.tolist(), masks.parts, colors, strict=True):
        window = drawn[y1:y2, x1:x2]
        window[part] = (1 - alpha) * window[part] + alpha * np.array(color, np.float32)
    return np.rint(drawn, out=drawn).astype(np.uint8)


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

"""Areas, intersections and IoU of boxes (x1, y1, x2, y2).

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N,) of boxes (N, 4)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the areas (N, M) that boxes (N, 4) share with others (M, 4)."""
    top_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(bottom_right - top_left, 0, None).prod(axis=2))


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N, M) of boxes (N, 4) and others (M, 4), 0 where both are empty."""
    shared = intersections(boxes, others)
    iou: np.ndarray = shared / np.maximum(areas(boxes)[:, None] + areas(others)[None, :] - shared, 1e-9)
    return iou

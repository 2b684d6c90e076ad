"""Nearest-neighbour resizing of class maps, as Pillow's NEAREST.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Tuple

import numpy as np


def resize_nearest(class_map: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Return a class map (H, W) at `size` (height, width), each pixel the class under its centre."""
    if class_map.shape == tuple(size):
        return class_map
    rows, columns = _nearest(class_map.shape[0], size[0]), _nearest(class_map.shape[1], size[1])
    return class_map.take(rows, axis=0).take(columns, axis=1)


@lru_cache(maxsize=64)
def _nearest(length: int, new_length: int) -> np.ndarray:
    return (2 * np.arange(new_length) + 1) * length // (2 * new_length)

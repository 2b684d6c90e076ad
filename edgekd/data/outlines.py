"""Outlines of labelling tools' shapes as polygons x1, y1, x2, y2, ... in pixels: rectangles, ellipses, rotated shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from reprlib import repr as short
from typing import Any

from edgekd.data.coco_masks import MAX_COORDINATE
from edgekd.errors import DataError

TOLERANCE_PX = 0.25  # between an ellipse and its polygon


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Return the corners of a rectangle."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def ellipse(x: float, y: float, across: float, down: float) -> list[float]:
    """Return points on an ellipse around (x, y) with the radii `across` and `down`, at most a quarter of a pixel off."""
    radius = max(abs(across), abs(down), 2 * TOLERANCE_PX)
    count = max(12, math.ceil(math.pi / math.acos(1 - TOLERANCE_PX / radius)))
    angles = [2 * math.pi * i / count for i in range(count)]
    return [value for angle in angles for value in (x + across * math.cos(angle), y + down * math.sin(angle))]


def turned(points: Sequence[float], x: float, y: float, degrees: float) -> list[float]:
    """Return points turned clockwise around (x, y)."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [
        value
        for right, below in ((points[i] - x, points[i + 1] - y) for i in range(0, len(points), 2))
        for value in (x + right * cosine - below * sine, y + right * sine + below * cosine)
    ]


def frame(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box x1, y1, x2, y2 around points."""
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def numbers(values: Any, where: str) -> list[float]:
    """Return values as floats; DataError for anything but a list of finite numbers."""
    if not isinstance(values, list) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < MAX_COORDINATE for v in values
    ):
        raise DataError(f"{where}: expected finite numbers, got {short(values)}; fix the annotation")
    return [float(value) for value in values]


def points_of(values: Any, where: str) -> list[float]:
    """Return [[x, y], ...] as x1, y1, x2, y2, ...; DataError for anything else."""
    if not isinstance(values, list) or not all(isinstance(one, list) and len(one) == 2 for one in values):
        raise DataError(f"{where}: expected points [[x, y], ...], got {short(values)}; fix the annotation")
    return numbers([value for one in values for value in one], where)

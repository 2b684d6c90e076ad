"""Shapes as stencils: a bool mask and where its corner lies on the canvas. Coordinates are integer subpixels.

A subpixel (x, y) is inside when its centre (x + 1/2, y + 1/2) is; everything is doubled so that this stays exact.
Coordinates may lie outside the canvas: painting clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stencil:
    """`mask` (h, w) bool whose first row and column are canvas row `top` and column `left`.

    `is_solid` says that the mask is True throughout, which is quicker to paint.
    """

    top: int
    left: int
    mask: np.ndarray
    is_solid: bool = False

    def without(self, hole: Stencil) -> Stencil:
        """Return this stencil where `hole` is not."""
        mask = self.mask.copy()
        height, width = mask.shape
        top, left = hole.top - self.top, hole.left - self.left
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(height, top + hole.mask.shape[0]), min(width, left + hole.mask.shape[1])
        if y0 < y1 and x0 < x1:
            mask[y0:y1, x0:x1] &= ~hole.mask[y0 - top : y1 - top, x0 - left : x1 - left]
        return Stencil(self.top, self.left, mask)


def rectangle(left: int, top: int, width: int, height: int) -> Stencil:
    """Return a filled rectangle."""
    return Stencil(top, left, np.ones((max(0, height), max(0, width)), bool), is_solid=True)


def ellipse(x: int, y: int, radius_x: int, radius_y: int) -> Stencil:
    """Return a filled ellipse around the corner point (x, y)."""
    across = (_count(-radius_x, radius_x) * 2 + 1)[None, :]
    down = (_count(-radius_y, radius_y) * 2 + 1)[:, None]
    limit = 4 * radius_x * radius_x * radius_y * radius_y
    return Stencil(y - radius_y, x - radius_x, (across * radius_y) ** 2 + (down * radius_x) ** 2 <= limit)


def disc(x: int, y: int, radius: int) -> Stencil:
    """Return a filled circle around the corner point (x, y)."""
    return ellipse(x, y, radius, radius)


def ring(x: int, y: int, radius: int, band: int) -> Stencil:
    """Return a circle of outer `radius` whose band is `band` wide."""
    return disc(x, y, radius).without(disc(x, y, radius - band))


def polygon(points: Sequence[tuple[int, int]]) -> Stencil:
    """Return a filled convex polygon; `points` are (x, y) corners, clockwise as seen on screen."""
    left, top = min(x for x, _ in points), min(y for _, y in points)
    right, bottom = max(x for x, _ in points), max(y for _, y in points)
    across = (_count(left, right) * 2 + 1)[None, :]
    down = (_count(top, bottom) * 2 + 1)[:, None]
    mask = np.ones((bottom - top, right - left), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        mask &= (x1 - x0) * (down - 2 * y0) - (y1 - y0) * (across - 2 * x0) >= 0
    return Stencil(top, left, mask)


def wire(start: tuple[int, int], end: tuple[int, int], sag: int, thickness: int) -> Stencil:
    """Return a hanging wire, a parabola from `start` to `end` (x, y) that hangs `sag` below their chord.

    `thickness` is measured vertically. `end` must lie to the right of `start`.
    """
    (x0, y0), (x1, y1) = start, end
    length = x1 - x0
    step = _count(length)
    center = y0 + (y1 - y0) * step // length + 4 * sag * step * (length - step) // (length * length)
    top = int(center.min()) - thickness
    down = _count(top, int(center.max()) + thickness + 1)[:, None]
    return Stencil(top, x0, (down >= center - thickness // 2) & (down < center - thickness // 2 + thickness))


def bars(left: int, top: int, width: int, height: int, period: int, thickness: int) -> Stencil:
    """Return upright bars, one every `period`, with two rails across them."""
    across, down = _count(width)[None, :], _count(height)[:, None]
    rails = (down // thickness == height // thickness // 4) | (down // thickness == height // thickness * 3 // 4)
    return Stencil(top, left, (across % period < thickness) | rails)


def lattice(left: int, top: int, width: int, height: int, period: int, thickness: int) -> Stencil:
    """Return bars crossed on both diagonals, in a frame; `thickness` is measured along a row."""
    across, down = _count(width)[None, :], _count(height)[:, None]
    crossed = ((across + down) % period < thickness) | ((across - down) % period < thickness)
    frame = (down < thickness) | (across < thickness) | (across >= width - thickness)
    return Stencil(top, left, crossed | frame)


def arch(left: int, top: int, width: int, height: int) -> Stencil:
    """Return a doorway: a rectangle whose upper end is round."""
    radius = width // 2
    across, down = _count(width)[None, :] * 2 + 1 - width, _count(height)[:, None] * 2 + 1 - 2 * radius
    return Stencil(top, left, (down >= 0) | (across * across + down * down <= 4 * radius * radius))


def _count(*start_stop: int) -> np.ndarray:
    """Return `np.arange` in int64 everywhere: numpy 1 on Windows would count in int32, and products overflow."""
    return np.arange(*start_stop, dtype=np.int64)

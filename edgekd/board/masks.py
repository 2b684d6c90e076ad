"""Masks of objects at the image's size, each computed and stored only inside its box.

Whole masks of 300 objects in a 640x640 image are 123 MB. Writing that much memory takes longer than computing the masks.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Iterator, List, Sequence, Tuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgekd.board.frame import Frame

# Multiplications of a product up to which OpenBLAS, numpy's, takes one thread (0.3.x, interface/gemm.c).
WITHOUT_THREADS = 1 << 18

# Masks up to this side (pixels, cells) are computed in one batch, from this number of masks on.
TOGETHER, TOGETHER_CELLS = 64, 16
FEWEST = 8


@dataclass(frozen=True)
class Masks:
    """Masks of N objects; `masks[i]` is one of them, (H, W) bool.

    size: (H, W) of the image.
    corners: (N, 4) int64 x1, y1, x2, y2: outside of these pixels a mask is False.
    parts: N arrays (y2 - y1, x2 - x1) bool.
    """

    size: Tuple[int, int]
    corners: np.ndarray
    parts: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> np.ndarray:
        x1, y1, x2, y2 = self.corners[number]
        whole = np.zeros(self.size, bool)
        whole[y1:y2, x1:x2] = self.parts[number]
        return whole

    def only(self, chosen: np.ndarray) -> Masks:
        """Return the masks of some objects, by (N,) bool."""
        return Masks(
            self.size, self.corners[chosen], [self.parts[number] for number in np.flatnonzero(chosen).tolist()]
        )

    def whole(self) -> np.ndarray:
        """Return all masks, (N, H, W) bool: a byte for every pixel of every object."""
        return np.stack([self[number] for number in range(len(self))]) if len(self) else np.zeros((0, *self.size), bool)


def assemble(prototypes: np.ndarray, coefficients: np.ndarray, boxes: np.ndarray, place: Frame) -> Masks:
    """Return the masks of a network with prototypes.

    A pixel belongs to an object when its centre lies in the box and the mixed prototypes, interpolated bilinearly between
    their cells' centres, are positive there.

    Args:
        prototypes: (P, h, w) over the whole input.
        coefficients: (N, P).
        boxes: (N, 4) x1, y1, x2, y2 in the image's pixels.
        place: where the image lies on the input.
    """
    corners = _corners(boxes, place.image_size)
    rows, columns = (_over_input(place, axis, cells) for axis, cells in enumerate(prototypes.shape[1:]))
    filled = corners[:, 2] > corners[:, 0]
    x1, y1, x2, y2 = corners[filled].T
    windows = np.zeros_like(corners)
    windows[filled] = np.stack([columns.first[x1], rows.first[y1], columns.last[x2 - 1], rows.last[y2 - 1]], axis=1)
    alone, groups = _alike(corners, windows)
    parts = [np.zeros((0, 0), bool)] * len(corners)
    for number in alone.tolist():
        parts[number] = _mixed_alone(
            prototypes, coefficients[number], corners[number], windows[number], rows.table, columns.turned
        )
    for group in groups:
        masks = _mixed_together(
            prototypes, coefficients[group], corners[group], windows[group], rows.table, columns.turned
        )
        for number, mask in zip(group.tolist(), masks):  # noqa: B905 - Python 3.8
            parts[number] = mask
    return Masks(place.image_size, corners, parts)


def _alike(corners: np.ndarray, windows: np.ndarray) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Return the indices of masks to compute alone, and groups to compute together: small, sides within a factor of two."""
    sides, cells = (ends[:, 2:] - ends[:, :2] for ends in (corners, windows))
    alone = (sides > 0).all(axis=1)
    small = np.flatnonzero(alone & ((sides <= TOGETHER) & (cells <= TOGETHER_CELLS)).all(axis=1))
    doublings = np.ceil(np.log2(np.maximum(sides[small], TOGETHER / 8)))
    kinds = doublings[:, 0] * TOGETHER + doublings[:, 1]
    order = np.argsort(kinds, kind="stable")
    groups = np.split(small[order], np.flatnonzero(np.diff(kinds[order])) + 1)
    groups = [group for group in groups if len(group) >= FEWEST]
    for group in groups:
        alone[group] = False
    return np.flatnonzero(alone), groups


def _mixed_alone(
    prototypes: np.ndarray,
    mix: np.ndarray,
    corner: np.ndarray,
    window: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """Return one mask; the arguments are one object's of `_mixed_together`."""
    x1, y1, x2, y2 = corner.tolist()
    left, top, right, bottom = window.tolist()
    inside = prototypes[:, top:bottom, left:right]
    logits = mix.dot(inside.reshape(len(mix), -1)).reshape(inside.shape[1:])
    return _product(_product(rows[y1:y2, top:bottom], logits), columns[left:right, x1:x2]) > 0


def _mixed_together(
    prototypes: np.ndarray,
    coefficients: np.ndarray,
    corners: np.ndarray,
    windows: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yield the masks of a group, computed at once over pixels and cells of the largest: numpy's calls, ten microseconds of
    each mask that is mixed alone, are shared.

    Args:
        prototypes: (P, h, w).
        coefficients: (N, P).
        corners: (N, 4) x1, y1, x2, y2 in pixels.
        windows: (N, 4) the same in cells.
        rows: (H, h), how pixels are interpolated between cells.
        columns: (w, W).
    """
    width, height = (corners[:, 2:] - corners[:, :2]).max(axis=0).tolist()
    across, down = (windows[:, 2:] - windows[:, :2]).max(axis=0).tolist()
    x, y = np.minimum(corners[:, :2], [columns.shape[1] - width, rows.shape[0] - height]).T  # not over the edge
    left, top = np.minimum(windows[:, :2], [columns.shape[0] - across, rows.shape[1] - down]).T
    cells = _windows(prototypes, down, across)[top, left].reshape(*coefficients.shape, -1)
    logits = np.matmul(coefficients[:, None], cells).reshape(-1, down, across)
    logits = np.matmul(_windows(rows, height, down)[y, top], logits)
    masks = np.matmul(logits, _windows(columns, across, width)[left, x]) > 0
    own = corners - np.stack([x, y, x, y], axis=1)
    for mask, (x1, y1, x2, y2) in zip(masks, own.tolist()):  # noqa: B905 - Python 3.8
        yield mask[y1:y2, x1:x2]


def _windows(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a view of every window of maps (..., H, W), by its top and left, (H - height + 1, W - width + 1, ..., height, width)."""
    shape = (maps.shape[-2] - height + 1, maps.shape[-1] - width + 1, *maps.shape[:-2], height, width)
    return as_strided(maps, shape, maps.strides[-2:] + maps.strides, writeable=False)


def paste(probabilities: np.ndarray, boxes: np.ndarray, image_size: Tuple[int, int]) -> Masks:
    """Return the masks of a network that gives each over its box: pixels whose centre lies in the box, above a half.

    Args:
        probabilities: (N, h, w) over the whole box, interpolated bilinearly between the cells' centres (Mask R-CNN,
            arXiv 1703.06870, section 3.1).
        boxes: (N, 4) x1, y1, x2, y2 in the image's pixels, not cut at its edges.
        image_size: (height, width).
    """
    corners = _corners(boxes, image_size)
    parts = []
    for found, (x1, y1, x2, y2), box in zip(probabilities, corners.tolist(), boxes):  # noqa: B905 - Python 3.8
        left, top, right, bottom = box.astype(np.float64)
        rows = _between((np.arange(y1, y2) + 0.5 - top) / max(bottom - top, 1e-9), found.shape[0])
        columns = _between((np.arange(x1, x2) + 0.5 - left) / max(right - left, 1e-9), found.shape[1])
        parts.append(_product(_product(rows.table, found), columns.turned) > 0.5)
    return Masks(image_size, corners, parts)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the matrix product (M, K) by (K, N), in pieces that BLAS does without threads.

    OpenBLAS's stay awake for tens of milliseconds after a product that takes them: on the cores of the engine's next run.
    """
    if len(left) * right.size <= WITHOUT_THREADS:
        product: np.ndarray = left.dot(right)
        return product
    at_once = max(1, WITHOUT_THREADS // right.size)
    product = np.empty((len(left), right.shape[1]), np.result_type(left, right))
    for begin in range(0, len(left), at_once):
        np.dot(left[begin : begin + at_once], right, out=product[begin : begin + at_once])
    return product


def _corners(boxes: np.ndarray, image_size: Tuple[int, int]) -> np.ndarray:
    """Return (N, 4) int64: the pixels whose centres lie in the boxes; where there is none, x2 = x1 and y2 = y1."""
    height, width = image_size
    limit = np.array([width, height, width, height])
    corners: np.ndarray = np.minimum(np.maximum(np.ceil(boxes - 0.5).astype(np.int64), 0), limit)
    first, last = corners[:, :2], corners[:, 2:]
    corners[:, 2:] = np.where((last > first).all(axis=1, keepdims=True), last, first)
    return corners


@dataclass(frozen=True)
class _Weights:
    """Bilinear interpolation along one axis: `table` (pixels, cells) float32, `turned` (cells, pixels) the same, and which
    cells a pixel takes, `first` to before `last`, (pixels,) int64 each."""

    table: np.ndarray
    turned: np.ndarray
    first: np.ndarray
    last: np.ndarray


@lru_cache(maxsize=16)
def _over_input(place: Frame, axis: int, cells: int) -> _Weights:
    """Return how the centres of the image's pixels are interpolated between the centres of the input's cells."""
    scale = place.size[axis] / place.image_size[axis]
    start = (place.top, place.left)[axis]
    return _between((start + (np.arange(place.image_size[axis]) + 0.5) * scale) / place.input_size[axis], cells)


def _between(positions: np.ndarray, cells: int) -> _Weights:
    """Return the interpolation at positions, which are fractions of the side that the cells fill."""
    position = np.clip(positions * cells - 0.5, 0, cells - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, cells - 1)
    share = (position - low).astype(np.float32)
    table, pixels = np.zeros((len(position), cells), np.float32), np.arange(len(position))
    table[pixels, low] = 1 - share
    table[pixels, high] += share
    return _Weights(table, np.ascontiguousarray(table.T), low, high + 1)

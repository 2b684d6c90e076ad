"""Greedy non-maximum suppression, block by block.

Boxes are compared only where they can overlap enough: one class, and centres near along x. A block is first compared with the
boxes kept so far, so that a crowd around one object is not compared with itself. Each block is as long as all before
it. The result is that of the textbook loop. Rows are picked by `take`: indexing of two dimensions takes up to ten times as long.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Set, Tuple

import numpy as np

_FIRST_BLOCK = 128


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou: float, most: int) -> np.ndarray:
    """Return the indices of the kept boxes, best first: greedy non-maximum suppression within each class.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N,); at equal scores the earlier box comes first.
        labels: (N,) class indices.
        iou: a box is dropped when its IoU with a better box of its class is above this.
        most: maximum number of boxes to keep.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = _ranked(boxes.take(order, axis=0), labels[order], iou)
    kept = np.empty(0, np.int64)
    start, end = 0, _FIRST_BLOCK
    while start < len(order) and len(kept) < most:
        block = np.arange(start, min(end, len(order)))
        left = np.ones(len(block), bool)
        left[_overlaps(ranked, kept, block)[1] - start] = False
        block = block[left]
        better, worse = _overlaps(ranked, block, block)
        ordered = better < worse
        gone: Set[int] = set()
        for one, other in zip(better[ordered].tolist(), worse[ordered].tolist()):  # noqa: B905 - Python 3.8; best first
            if one not in gone:
                gone.add(other)
        kept = np.concatenate([kept, np.array([place for place in block.tolist() if place not in gone], np.int64)])
        start, end = end, 2 * end
    return order[kept[:most]]


@dataclass(frozen=True)
class _Ranked:
    """Boxes, best first.

    corners: (4, N).
    shares: (N,), area times iou / (1 + iou): an intersection above two boxes' shares together is one over union above `iou`.
    places: (N,) float64, the centre along x plus an offset per class, so that classes do not overlap.
    reaches: (N,), largest distance in `places` at which a box can still overlap above the threshold.
    """

    corners: np.ndarray
    shares: np.ndarray
    places: np.ndarray
    reaches: np.ndarray


def _ranked(boxes: np.ndarray, labels: np.ndarray, iou: float) -> _Ranked:
    corners = np.ascontiguousarray(boxes.T)
    x1, y1, x2, y2 = corners
    widths, centres = (x2 - x1).astype(np.float64), (x1 + x2).astype(np.float64) / 2
    extent = np.ptp(centres) if len(centres) else 0.0
    # Farthest is the centre of a box that is 1 / iou as wide and has this one at its side; a little more for rounding.
    farthest = (1 / max(iou, 1e-6) - 1) / 2 * 1.001 * widths + 1e-3
    places = centres + labels * (2 * extent + 2)
    return _Ranked(corners, widths * (y2 - y1) * (iou / (1 + iou)), places, np.minimum(farthest, extent + 1))


def _overlaps(ranked: _Ranked, one: np.ndarray, other: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the pairs of boxes of one class with an intersection over union above the limit: first those of `one`, in
    order, then those of `other`; all four are indices."""
    other = other[np.argsort(ranked.places[other], kind="stable")]
    places, reaches = ranked.places[one], ranked.reaches[one]
    first = np.searchsorted(ranked.places[other], places - reaches)
    counts = np.searchsorted(ranked.places[other], places + reaches, side="right") - first
    before = np.cumsum(counts) - counts
    left = np.repeat(one, counts)
    right = other[np.arange(len(left)) + np.repeat(first - before, counts)]
    x1, y1, x2, y2 = ranked.corners.take(left, axis=1)
    u1, v1, u2, v2 = ranked.corners.take(right, axis=1)
    shared = np.minimum(x2, u2) - np.maximum(x1, u1)
    shared *= np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0)  # not positive where either side is not
    hit = shared > ranked.shares[left] + ranked.shares[right]
    return left[hit], right[hit]

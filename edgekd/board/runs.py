"""Run lengths of masks, as COCO counts them: pixels of a column-major (H, W) mask in turn, beginning with zeros.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np


def encode_runs(mask: np.ndarray) -> Dict[str, List[int]]:
    """Return a mask (H, W) bool as COCO's uncompressed run lengths; `decode_runs` reads its `counts`."""
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}


def encode_values(labels: np.ndarray) -> Dict[str, List[int]]:
    """Return a class map (H, W) as run lengths, column by column as COCO's, with the value of each run.

    `np.repeat(values, counts).reshape(width, height).T` is its inverse.
    """
    flat = labels.T.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    counts = np.diff(starts, append=flat.size)
    return {"size": list(labels.shape), "values": flat[starts].tolist(), "counts": counts.tolist()}


def encode_part(part: np.ndarray, corner: Tuple[int, int], size: Tuple[int, int]) -> List[int]:
    """Return the run lengths of a mask of `size` (height, width) that is `part` (h, w) bool at `corner` (x, y), else zeros."""
    height, width = part.shape
    flat = np.zeros(width * (height + 1) + 1, bool)  # column by column, a zero before the first and after each
    flat[1:].reshape(width, height + 1)[:, :height] = part.T
    columns, rows = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), height + 1)
    changes = (columns + corner[0]) * size[0] + rows + corner[1]
    joined = np.flatnonzero(
        changes[1:-1:2] == changes[2::2]
    )  # at the lower edge of one column and the upper of the next
    changes = np.delete(changes, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    lengths: List[int] = np.diff(changes, prepend=0, append=size[0] * size[1]).tolist()
    return lengths


def filled_columns(runs: np.ndarray, height: int, columns: Tuple[int, int]) -> np.ndarray:
    """Return some columns of a mask as (height, columns) bool, from the run lengths (N,) int64 of the whole mask."""
    first, last = columns
    mask = np.zeros((height, last - first), bool)
    ends = np.cumsum(np.concatenate([[0], runs]))
    objects = np.flatnonzero(runs[1::2])  # runs of pixels, and not of zeros
    if objects.size:  # only the columns that they reach are filled: photos are large and objects small
        one, other = 2 * objects[0] + 1, 2 * objects[-1] + 1
        left, right = ends[one] // height, -(-ends[other + 1] // height)
        lengths = [ends[one] - left * height, *runs[one : other + 1], right * height - ends[other + 1]]
        values = np.arange(len(lengths)) % 2 == 1
        mask[:, left - first : right - first] = np.repeat(values, lengths).reshape(right - left, height).T
    return mask

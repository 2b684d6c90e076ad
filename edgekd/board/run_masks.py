"""Masks of an image's objects as run lengths, decoded one by one and only where the object is.

500 whole masks of 3000x4000 pixels are 6 GB; their run lengths are a few megabytes.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple, Union, overload

import numpy as np

from edgekd.board.masks import Masks
from edgekd.board.runs import encode_part, filled_columns

_Corner = Tuple[int, int, int, int]


class RunParts(Sequence[np.ndarray]):
    """The parts of `board.masks.Masks`, decoded from run lengths each time one is asked for.

    Args:
        runs: for each object its run lengths over the whole image, column by column, zeros first, int64.
        size: (height, width) of the image.
    """

    def __init__(self, runs: Sequence[np.ndarray], size: Tuple[int, int]) -> None:
        self._runs, self._height = [each.astype(np.uint32) for each in runs], size[0]
        self.corners = np.array([_corner(each, size[0]) for each in runs], np.int64).reshape(-1, 4)
        self.areas = np.array([each[1::2].sum() for each in runs], np.int64)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, number: slice) -> List[np.ndarray]: ...
    def __getitem__(self, number: Union[int, slice]) -> Union[np.ndarray, List[np.ndarray]]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        x1, y1, x2, y2 = self.corners[number]
        return filled_columns(self._runs[number].astype(np.int64), self._height, (int(x1), int(x2)))[y1:y2]

    def runs(self, number: int) -> List[int]:
        """Return the run lengths of one mask."""
        lengths: List[int] = self._runs[number].tolist()
        return lengths

    @property
    def nbytes(self) -> int:
        """Bytes of all run lengths."""
        return sum(each.nbytes for each in self._runs)


def run_masks(runs: Sequence[np.ndarray], size: Tuple[int, int]) -> Masks:
    """Return the masks of run lengths over an image of `size` (height, width)."""
    parts = RunParts(runs, size)
    return Masks(size, parts.corners, parts)


def tight_masks(masks: np.ndarray) -> Masks:
    """Return whole masks (N, H, W) bool as their parts."""
    corners = np.zeros((len(masks), 4), np.int64)
    for number, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            corners[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    pairs = zip(masks, corners.tolist())  # noqa: B905 - Python 3.8
    parts = [mask[y1:y2, x1:x2].copy() for mask, (x1, y1, x2, y2) in pairs]
    return Masks((masks.shape[1], masks.shape[2]), corners, parts)


def mask_areas(masks: Masks) -> np.ndarray:
    """Return the number of pixels of each mask, (N,) int64."""
    if isinstance(masks.parts, RunParts):
        return masks.parts.areas
    return np.array([part.sum() for part in masks.parts], np.int64)


def runs_of(masks: Masks, number: int) -> List[int]:
    """Return the run lengths of one mask over the whole image, as COCO counts them."""
    if isinstance(masks.parts, RunParts):
        return masks.parts.runs(number)
    x, y = masks.corners[number, :2].tolist()
    return encode_part(masks.parts[number], (x, y), (masks.size[0], masks.size[1]))


def union(masks: Masks) -> np.ndarray:
    """Return the pixels of any mask, (H, W) bool."""
    whole = np.zeros(masks.size, bool)
    for (x1, y1, x2, y2), part in zip(masks.corners.tolist(), masks.parts):  # noqa: B905 - Python 3.8
        whole[y1:y2, x1:x2] |= part
    return whole


def size_bytes(masks: Masks) -> int:
    """Return the bytes that masks take in memory."""
    return masks.parts.nbytes if isinstance(masks.parts, RunParts) else sum(part.nbytes for part in masks.parts)


def packed(masks: Masks, numbers: Sequence[int]) -> Dict[str, np.ndarray]:
    """Return some masks as arrays for a file: their run lengths in one row, and the number of runs of each; see `unpacked`."""
    runs = [runs_of(masks, number) for number in numbers]
    return {
        "mask_runs": np.array([run for each in runs for run in each], np.uint32),
        "mask_run_counts": np.array([len(each) for each in runs], np.uint32),
    }


def unpacked(runs: np.ndarray, counts: np.ndarray, size: Tuple[int, int]) -> Masks:
    """Return the masks of `packed` over an image of `size` (height, width)."""
    return run_masks(
        np.split(runs.astype(np.int64), np.cumsum(counts.astype(np.int64))[:-1]) if len(counts) else [], size
    )


def _corner(runs: np.ndarray, height: int) -> _Corner:
    """Return x1, y1, x2, y2 around the pixels of run lengths; zeros where there is none."""
    ends = np.cumsum(runs)
    last, first = ends[1::2], ends[::2][: len(ends) // 2]  # of each run of pixels
    is_filled = last > first
    if not is_filled.any():
        return 0, 0, 0, 0
    first, last = first[is_filled], last[is_filled] - 1
    left, right = first // height, last // height
    is_whole = (left != right).any()  # such a run passes the lower edge
    top = 0 if is_whole else int((first % height).min())
    bottom = height if is_whole else int((last % height).max()) + 1
    return int(left[0]), top, int(right[-1]) + 1, bottom

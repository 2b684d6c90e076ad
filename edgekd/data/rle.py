"""COCO's run-length encoding of masks, read without trusting the file.

Runs count pixels of a column-major (H, W) mask, beginning with zeros. The compressed form writes each run in base 32, six
bits per character from `0` on, the third and later runs as the difference to the run two before.
Source: pycocotools 2.0, common/maskApi.c (`rleFrString`), whose C code does not check what the runs add up to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10  # of a character


def decode(counts: str | bytes | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of `size` (height, width).

    Raises:
        ValueError: not runs, or runs that do not add up to the size.
    """
    runs = _decompressed(counts) if isinstance(counts, str | bytes) else list(counts)
    if any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs):
        raise ValueError("expected runs that are whole numbers, 0 or more")
    height, width = size
    if sum(runs) != height * width:
        raise ValueError(f"expected runs that add up to {height} x {width} = {height * width} pixels, got {sum(runs)}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompressed(text: str | bytes) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace") if isinstance(text, str) else text:
        digit = code - _FIRST
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f"not a run-length string: character {chr(code)!r}")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & _MORE:
            continue
        if digit & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length string that ends in the middle of a run")
    return runs

"""One pass of a resize along rows or columns, with buffers that it keeps: nothing is allocated per image.

Where numpy's BLAS is fast, a pass is products of small matrices (`filters.blocks`). Elsewhere, as with Debian's reference
BLAS, it is a weighted sum of shifted copies, tap by tap.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Callable, List, Tuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgekd.board.filters import WITHOUT_THREADS, Blocks, Filter, blocks

Pass = Callable[[], None]
# Multiplications per second from which products beat weighted sums, which do some 1e9 on AVX2 (benchmarks/prepost.py).
_FAST = 4e9


class Axis:
    """A filter, and how buffers hold its axis.

    Old pixel p stands at `before + p` of `padded` pixels. The others must be finite. New pixel i stands at i of `new_padded`.
    """

    def __init__(self, filter_: Filter, others: int, with_products: bool, is_across: bool) -> None:
        self.filter = filter_
        lanes = 16 if is_across else 1
        self.blocks = blocks(filter_, others, lanes) if with_products and not filter_.is_identity else None
        self.before = self.blocks.before if self.blocks else 0
        self.padded = self.blocks.padded if self.blocks else filter_.length
        self.new_padded = self.blocks.new_padded if self.blocks else len(filter_)

    @property
    def inside(self) -> slice:
        """The old pixels in their buffer."""
        return slice(self.before, self.before + self.filter.length)

    def rows(self, source: np.ndarray, out: np.ndarray) -> Pass:
        """Return the pass from `source` (C, padded, N) to `out` (C, new_padded, N), both float32."""
        if self.blocks is None:
            return _sum_of_taps(self.filter, source, out, np.empty_like(out), axis=1)
        made, (channels, _, width) = self.blocks, source.shape
        plane, row, item = out.strides
        new = as_strided(out, (len(made.weights), channels, made.size, width), (made.size * row, plane, row, item))
        return _row_products(made.weights, _row_windows(made, source), new)

    def row_chunks(self, source: np.ndarray, most: int) -> List[Chunk]:
        """Return the pass along rows in chunks of about `most` new rows, which share a buffer; the last may have padding."""
        channels, _, width = source.shape
        if self.blocks is None:
            starts = range(0, len(self.filter), most)
            ranges = [(start, min(start + most, len(self.filter))) for start in starts]
            if self.filter.is_identity:
                return [Chunk(start, source[None, :, start:stop]) for start, stop in ranges]
            buffers = np.empty((2, channels * most * width), np.float32)
            chunks = []
            for start, stop in ranges:
                out, one = (flat[: channels * (stop - start) * width].reshape(channels, -1, width) for flat in buffers)
                some = Filter(self.filter.length, self.filter.first[start:stop], self.filter.weights[start:stop])
                chunks.append(Chunk(start, out[None], _sum_of_taps(some, source, out, one, axis=1)))
            return chunks
        made, windows = self.blocks, _row_windows(self.blocks, source)
        count = max(1, most // made.size)
        values = np.empty((count, channels, made.size, width), np.float32)
        chunks = []
        for first in range(0, len(made.weights), count):
            weights, old = made.weights[first : first + count], windows[first : first + count]
            new = values[: len(weights)]
            chunks.append(Chunk(first * made.size, new, _row_products(weights, old, new)))
        return chunks

    def columns(self, source: np.ndarray, out: np.ndarray) -> Pass:
        """Return the pass from `source` (C, N, padded) to `out` (C, N, new_padded), both float32."""
        if self.blocks is None:
            return _sum_of_taps(self.filter, source, out, np.empty_like(out), axis=2)
        made, (channels, height, _) = self.blocks, source.shape
        count, size, window = made.weights.shape
        plane, row, item = source.strides
        old = as_strided(
            source[..., made.offset :], (channels, count, height, window), (plane, made.step * item, row, item)
        )
        plane, row, item = out.strides
        new = as_strided(out, (channels, count, height, size), (plane, size * item, row, item))
        weights = np.ascontiguousarray(made.weights.transpose(0, 2, 1))
        most = max(1, WITHOUT_THREADS // (size * window))
        pieces = [slice(start, start + most) for start in range(0, height, most)]
        return _products([(old[:, :, piece], weights, new[:, :, piece]) for piece in pieces])


@dataclass(frozen=True)
class Chunk:
    """Some new rows, from `start` on, which `make` computes into `values` (B, C, n, N): B times n rows of C channels."""

    start: int
    values: np.ndarray
    make: Pass = lambda: None

    def __len__(self) -> int:
        return int(self.values.shape[0] * self.values.shape[2])


def _row_windows(made: Blocks, source: np.ndarray) -> np.ndarray:
    """Return the windows (blocks, C, window, N) of `source` (C, padded, N), as views."""
    channels, _, width = source.shape
    plane, row, item = source.strides
    shape = (len(made.weights), channels, made.window, width)
    return as_strided(source[:, made.offset :], shape, (made.step * row, plane, row, item))


def _row_products(weights: np.ndarray, old: np.ndarray, new: np.ndarray) -> Pass:
    """Return the pass from windows `old` (B, C, window, N) to `new` (B, C, size, N)."""
    _, size, window = weights.shape
    most = max(1, WITHOUT_THREADS // (size * window))
    pieces = [slice(start, start + most) for start in range(0, old.shape[3], most)]
    return _products([(weights[:, None], old[..., piece], new[..., piece]) for piece in pieces])


def _products(operands: List[Tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Pass:
    def run() -> None:
        for left, right, out in operands:
            np.matmul(left, right, out=out)

    return run


def _sum_of_taps(filter_: Filter, source: np.ndarray, out: np.ndarray, one: np.ndarray, axis: int) -> Pass:
    """Return the pass that adds the taps one after the other, each rounded to float32; `one` holds a tap."""
    weights = filter_.weights.astype(np.float32).T  # (S, N)
    scales = [column[:, None] if axis == 1 else column for column in np.ascontiguousarray(weights)]
    places = [filter_.first + j for j in range(filter_.taps)]

    def run() -> None:
        np.take(source, places[0], axis=axis, out=out, mode="clip")
        np.multiply(out, scales[0], out=out)
        for place, scale in zip(places[1:], scales[1:]):  # noqa: B905 - Python 3.8
            np.take(source, place, axis=axis, out=one, mode="clip")
            np.multiply(one, scale, out=one)
            np.add(out, one, out=out)

    return run


@lru_cache(maxsize=None)
def has_fast_products() -> bool:
    """Return whether this numpy multiplies small matrices fast; tried once, in a millisecond."""
    left, right = np.ones((16, 16), np.float32), np.ones((8, 16, 256), np.float32)
    out, times = np.empty_like(right), []
    for _ in range(5):
        started = time.perf_counter()
        np.matmul(left, right, out=out)
        times.append(time.perf_counter() - started)
    return right.size * 16 / min(times) > _FAST

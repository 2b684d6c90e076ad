"""Resize filters: weights of the old axis's pixels for each new pixel, and fast matrix products that apply them.

Bilinear with antialiasing, as Pillow's BILINEAR and torchvision's `antialias=True`: pixel centres are aligned
(`align_corners=False`), and the filter is a triangle whose support grows with the scale when an axis shrinks. When it
grows, this is torch's plain `interpolate(mode="bilinear")`.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple

import numpy as np

# OpenBLAS computes a product of at most this many multiplications in the calling thread (0.3.x, interface/gemm.c).
# Larger ones wake threads that then spin beside the engine's.
WITHOUT_THREADS = 1 << 18
# New pixels of a block, and the fixed cost of a product, counted in multiplications (tried with AVX-512).
_SIZES = range(4, 49)
_PRODUCT_COST = 50_000


@dataclass(frozen=True, eq=False)
class Filter:
    """A linear map of an axis: out[i] = sum over j of weights[i, j] * in[first[i] + j].

    length: length of the old axis.
    first: (N,) intp, the first pixel with a weight.
    weights: (N, S) float64, never negative; a row sums to one. first + S is at most `length`.
    """

    length: int
    first: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def taps(self) -> int:
        """Largest number of old pixels per new pixel."""
        return int(self.weights.shape[1])

    @property
    def is_identity(self) -> bool:
        """Whether the filter leaves the axis unchanged."""
        return self.length == len(self) and self.taps == 1

    def then(self, second: Filter) -> Filter:
        """Return one filter equal to this filter followed by `second`."""
        first = self.first[second.first]
        ends = self.first[second.first + second.taps - 1] + self.taps
        weights = np.zeros((len(second), int((ends - first).max())))
        rows = np.arange(len(second))[:, None]
        for j in range(second.taps):
            source = second.first + j
            places = (self.first[source] - first)[:, None] + np.arange(self.taps)
            counted = places < weights.shape[1]  # the others have no weight: `_fitted` moved them
            np.add.at(weights, (np.broadcast_to(rows, places.shape)[counted], places[counted]),
                      (second.weights[:, j, None] * self.weights[source])[counted])  # fmt: skip
        return _fitted(self.length, first, weights)

    def part(self, start: int, stop: int) -> Tuple[int, Filter]:
        """Return the filter of some new pixels, and the old pixel at which its own old axis starts."""
        first = self.first[start:stop]
        low = int(first.min())
        return low, Filter(int(first.max()) + self.taps - low, first - low, self.weights[start:stop])


def _fitted(length: int, first: np.ndarray, weights: np.ndarray) -> Filter:
    """Return the filter whose taps all lie on the old axis; those beyond it have no weight."""
    taps = min(weights.shape[1], length)
    moved = np.maximum(first - (length - taps), 0)
    fitted = np.zeros((len(first), taps))
    for j in range(taps):
        source = j - moved
        inside = (source >= 0) & (source < weights.shape[1])
        fitted[inside, j] = weights[inside, source[inside]]
    return Filter(length, (first - moved).astype(np.intp), fitted)


@lru_cache(maxsize=64)
def bilinear(length: int, new_length: int) -> Filter:
    """Return the filter that resizes an axis; the identity when it keeps its length.

    Source: Pillow, src/libImaging/Resample.c, precompute_coeffs with bilinear_filter.
    """
    scale = length / new_length
    width = max(scale, 1.0)
    centre = (np.arange(new_length) + 0.5) * scale
    first = np.maximum(np.floor(centre - width + 0.5), 0)
    last = np.minimum(np.floor(centre + width + 0.5), length)  # exclusive
    position = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(1 - np.abs(position + 0.5 - centre[:, None]) / width, 0) * (position < last[:, None])
    weights = weights[:, weights.any(axis=0)]  # the last tap of an axis that keeps its length has no weight
    return _fitted(length, first.astype(np.intp), weights / weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=64)
def placed(length: int, full: int, start: int, size: int, new_length: int) -> Filter:
    """Return the filter of one axis from a network's output to the image: resize to the input, crop the image's part, resize.

    Args:
        length: length of the output.
        full: length of the input.
        start, size: the part that the image covers.
        new_length: length of the image.
    """
    low, inner = bilinear(length, full).part(start, start + size)
    shifted = Filter(length, inner.first + low, inner.weights)
    return shifted.then(bilinear(size, new_length))


@dataclass(frozen=True, eq=False)
class Blocks:
    """A filter as products of small matrices, one per block of new pixels, whose old pixels start at even steps.

    Old pixel p stands at `before + p` of a buffer of `padded` pixels, whose others have no weight and are finite; block b
    reads `window` of them from `offset + b * step` on. The new axis is padded to `new_padded` pixels.

    weights: (blocks, size, window) float32.
    """

    before: int
    offset: int
    step: int
    padded: int
    new_padded: int
    weights: np.ndarray

    @property
    def size(self) -> int:
        """New pixels of a block."""
        return int(self.weights.shape[1])

    @property
    def window(self) -> int:
        """Old pixels that a block reads."""
        return int(self.weights.shape[2])


def blocks(filter_: Filter, others: int, lanes: int) -> Blocks:
    """Return the blocks of a filter that cost least.

    others: pixels along the other axis, which every product covers.
    lanes: new pixels that a product computes at once.
    """
    found = []
    for size in _SIZES:
        count = -(-len(filter_) // size)
        for step in {max(1, size * filter_.length // len(filter_)), max(1, -(-size * filter_.length // len(filter_)))}:
            starts = np.arange(len(filter_)) // size * step
            low = int((filter_.first - starts).min())
            window = int((filter_.first - starts).max()) + filter_.taps - low
            pieces = -(-others * size * window // WITHOUT_THREADS)
            cost = count * (others * -(-size // lanes) * lanes * window + pieces * _PRODUCT_COST)
            found.append((cost, size, step, low, window, count))
    _, size, step, low, window, count = min(found)
    weights = np.zeros((count, size, window), np.float32)
    new = np.arange(len(filter_))
    places = filter_.first - new // size * step - low
    for j in range(filter_.taps):
        weights[new // size, new % size, places + j] = filter_.weights[:, j]
    before = max(0, -low)
    padded = max(before + filter_.length, (count - 1) * step + low + before + window)
    return Blocks(before, low + before, step, padded, count * size, weights)

"""Resizes uint8 images: bilinear with antialiasing, rounded to uint8, the same bytes on every machine.

The result is that of float32 sums, tap by tap, along one axis and then the other. Products of matrices add in another order,
so that a sum close to half a grey level could round to the other side. Those few are computed again, tap by tap.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from edgekd.board.filters import Filter, bilinear
from edgekd.board.passes import Axis, has_fast_products

Size = Tuple[int, int]
_HALF = np.float32(0.5)
# Share of pixels to compute again from which all of them are: each of them takes that much longer.
_MANY = 0.02


class ImageResize:
    """Resizes images of one size, or some rows of the result, with preallocated buffers.

    image_size, size: (height, width), old and new.
    rows: start and stop of the new rows to make; None: all.
    with_products: whether to multiply matrices; None: where numpy does that fast.
    """

    def __init__(
        self,
        image_size: Size,
        size: Size,
        rows: Optional[Tuple[int, int]] = None,
        with_products: Optional[bool] = None,
    ) -> None:
        with_products = has_fast_products() if with_products is None else with_products
        self._asked = image_size, size, rows
        self._slow: Optional[ImageResize] = None
        start, stop = rows or (0, size[0])
        self._low, self._down = bilinear(image_size[0], size[0]).part(start, stop)
        self._across = bilinear(image_size[1], size[1])
        # The cheap axis first, unless it makes more work for the other.
        self._rows_first = size[0] <= image_size[0]
        height, width = (stop - start, image_size[1]) if self._rows_first else (self._down.length, size[1])
        down = Axis(self._down, width, with_products, is_across=False)
        across = Axis(self._across, height, with_products, is_across=True)
        source = np.zeros((3, down.padded, across.padded), np.float32)
        self._source = source[:, down.inside, across.inside]
        self._passes = []
        for axis in (down, across) if self._rows_first else (across, down):
            if axis.filter.is_identity:
                continue
            is_down = axis is down
            shape = (3, axis.new_padded, source.shape[2]) if is_down else (3, source.shape[1], axis.new_padded)
            made = np.zeros(shape, np.float32)
            self._passes.append((axis.rows if is_down else axis.columns)(source, made))
            source = made
        self._sums = source[:, : stop - start, : size[1]]
        self._pixels = np.empty(self._sums.shape, np.float32)
        self._upper = np.empty_like(self._pixels)
        self._is_near = np.empty(self._sums.shape, bool)
        # Half the gap between sums of 0 to 255 in different orders; where the weights are short, every order is exact.
        self._doubt = np.float32(255 * 2.0**-23 * (self._down.taps + self._across.taps + 4))
        self._short = _are_short(self._down), _are_short(self._across)
        self._is_exact = not with_products or bool(self._short[0].all() and self._short[1].all())

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return planes (3, rows, W) float32 of whole numbers for an image (H, W, 3) uint8, C-contiguous.

        They are valid until the next call.
        """
        image = image[self._low : self._low + self._down.length]
        np.copyto(self._source, image.transpose(2, 0, 1))
        for one in self._passes:
            one()
        pixels, sums = self._pixels, self._sums
        if self._is_exact:
            np.add(sums, _HALF, out=pixels)
            return np.floor(pixels, out=pixels)
        np.add(sums, _HALF - self._doubt, out=pixels)
        np.floor(pixels, out=pixels)
        np.add(sums, _HALF + self._doubt, out=self._upper)
        np.floor(self._upper, out=self._upper)
        np.not_equal(pixels, self._upper, out=self._is_near)
        near = np.flatnonzero(self._is_near)
        if len(near) > _MANY * pixels.size:  # e.g. a slow gradient
            return self._tap_by_tap(image)
        if len(near):
            channel, row, column = np.unravel_index(near, pixels.shape)
            found = sums[channel, row, column]
            inexact = np.flatnonzero(~(self._short[0][row] & self._short[1][column]))
            if len(inexact):
                found[inexact] = self._summed(image, channel[inexact], row[inexact], column[inexact])
            pixels.reshape(-1)[near] = np.floor(found + _HALF)
        return pixels

    def _tap_by_tap(self, image: np.ndarray) -> np.ndarray:
        """Return the planes from the same rows of the image, all of them computed tap by tap."""
        if self._slow is None:
            self._slow = ImageResize(*self._asked, with_products=False)
            self._slow._low = 0  # it is given the rows that this one read
        return self._slow(image)

    def _summed(self, image: np.ndarray, channel: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the filter sums (N,) float32 at some positions of the planes, tap by tap."""
        rows, row_weights = _taps_at(self._down, row)
        columns, column_weights = _taps_at(self._across, column)
        index = (rows * (image.shape[1] * 3))[:, None] + (columns * 3 + channel)  # (rows' taps, columns' taps, N)
        values = image.reshape(-1).take(index)
        if self._rows_first:
            return _added(_added(values * row_weights[:, None]) * column_weights)
        return _added(_added((values * column_weights).transpose(1, 0, 2)) * row_weights)


def _added(terms: np.ndarray) -> np.ndarray:
    """Return the sum over the first axis, term after term; numpy's own takes pairs where the other axes are short."""
    total: np.ndarray = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _taps_at(filter_: Filter, places: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return sources (S, N) and float32 weights (S, N) of some new pixels (N,)."""
    sources = filter_.first[places] + np.arange(filter_.taps)[:, None]
    return sources, filter_.weights[places].astype(np.float32).T


def _are_short(filter_: Filter) -> np.ndarray:
    """Return (N,) bool: the weights of a new pixel have at most 8 binary places, so that sums of 0 to 255 are exact."""
    scaled = filter_.weights * 2**8
    return np.asarray((scaled == np.rint(scaled)).all(axis=1))

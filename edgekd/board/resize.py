"""Bilinear resizing with antialiasing, as Pillow's BILINEAR and torchvision's `antialias=True`; argmax at a new size.

Pixel centres are aligned (`align_corners=False`). The filter is a triangle whose support grows with the scale when an
axis shrinks; when it grows, this is torch's plain `interpolate(mode="bilinear")`.

No BLAS on purpose: a threaded BLAS leaves its threads spinning beside the engine's, on a busy machine for seconds.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, NamedTuple, Tuple

import numpy as np

Size = Tuple[int, int]

# Above this share of pixels whose source pixels disagree, interpolating everything is faster (benchmarks/prepost.py).
_DENSE_ABOVE = 0.3
# Elements of a strip in `argmax`: a float32 strip and its running maximum stay in a 512 KB level-2 cache.
_STRIP = 32768


class Taps(NamedTuple):
    """Sparse weights of one axis: out[i] = sum over k of weights[k, i] * in[source[k, i]]; float32, never negative."""

    source: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=64)
def taps(length: int, new_length: int) -> Taps:
    """Return the taps (K, new_length) that resize an axis.

    Source: Pillow, src/libImaging/Resample.c, precompute_coeffs with bilinear_filter.
    """
    scale = length / new_length
    width = max(scale, 1.0)
    centre = (np.arange(new_length) + 0.5) * scale
    first = np.maximum(np.floor(centre - width + 0.5), 0)
    last = np.minimum(np.floor(centre + width + 0.5), length)  # exclusive
    position = first + np.arange(int((last - first).max()))[:, None]  # (K, new_length)
    weights = np.maximum(1 - np.abs(position + 0.5 - centre) / width, 0) * (position < last)
    index = np.minimum(position, length - 1).astype(np.intp)
    used = weights.any(axis=1)  # the last tap of an axis that keeps its length has no weight
    index, weights = index[used], (weights / weights.sum(axis=0)).astype(np.float32)[used]
    index.setflags(write=False)
    weights.setflags(write=False)
    return Taps(index, weights)


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Return an image (H, W, C) uint8 at `size` (height, width), rounded to uint8; the image itself at its own size."""
    height, width, channels = image.shape
    if (height, width) == tuple(size):
        return image
    rows = image.reshape(height, width * channels)
    if size[0] <= height:  # the cheap axis first, unless it makes more work for the other
        resized = _resize_columns(_resize_rows(rows, size[0]), size[1], channels)
    else:
        resized = _resize_rows(_resize_columns(rows, size[1], channels), size[0])
    resized += np.float32(0.5)
    return resized.astype(np.uint8).reshape(size[0], size[1], channels)


def resize_plane(plane: np.ndarray, size: Size) -> np.ndarray:
    """Return a plane (H, W) float32 at `size` (height, width); the plane itself at its own size."""
    if size[0] <= plane.shape[0]:
        return _resize_columns(_resize_rows(plane, size[0]), size[1])
    return _resize_rows(_resize_columns(plane, size[1]), size[0])


def resize_nearest(class_map: np.ndarray, size: Size) -> np.ndarray:
    """Return a class map (H, W) at `size` (height, width), each pixel the class under its centre (Pillow's NEAREST)."""
    if class_map.shape == tuple(size):
        return class_map
    rows, columns = _nearest(class_map.shape[0], size[0]), _nearest(class_map.shape[1], size[1])
    return class_map.take(rows, axis=0).take(columns, axis=1)


def argmax(logits: np.ndarray) -> np.ndarray:
    """Return the index (H, W) uint8 of the largest of at most 256 planes (K, H, W); the first wins a tie."""
    classes, height, width = logits.shape
    winner = np.zeros((height, width), np.uint8)
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        strip = logits[:, top : top + step]
        best = strip[0].copy()
        for k in range(1, classes):
            _challenge(winner[top : top + step], best, strip[k], k)
    return winner


def resize_argmax(logits: np.ndarray, size: Size) -> np.ndarray:
    """Return the argmax (H, W) uint8 of logits (K, h, w) float32 resized to `size`, exactly, most of it for free.

    Where all source pixels of an output pixel have the same argmax, so has the output pixel: no weight is negative,
    and rounding is monotonic. Only the others are interpolated.
    """
    low = high = argmax(logits)
    if low.shape == tuple(size):
        return low
    for axis in (0, 1):
        index = taps(logits.shape[1 + axis], size[axis]).source
        low, high = _extreme(np.minimum, low, index, axis), _extreme(np.maximum, high, index, axis)
    mixed = np.flatnonzero(low != high)
    if len(mixed) > _DENSE_ABOVE * low.size:
        return _dense_argmax(logits, size)
    low.reshape(-1)[mixed] = _argmax_at(logits, size, mixed)
    return low


def _challenge(winner: np.ndarray, best: np.ndarray, plane: np.ndarray, k: int) -> None:
    """Where `plane` exceeds `best`, set `winner` to k; k grows from call to call, so a maximum does it branch-free."""
    won = np.greater(plane, best).view(np.uint8)
    np.maximum(best, plane, out=best)
    np.multiply(won, np.uint8(k), out=won)
    np.maximum(winner, won, out=winner)


def _dense_argmax(logits: np.ndarray, size: Size) -> np.ndarray:
    best = resize_plane(logits[0], size)
    winner = np.zeros(size, np.uint8)
    for k in range(1, len(logits)):
        _challenge(winner, best, resize_plane(logits[k], size), k)
    return winner


def _argmax_at(logits: np.ndarray, size: Size, pixels: np.ndarray) -> np.ndarray:
    """Return the argmax (N,) uint8 of the resized logits at N flat output pixels."""
    classes, height, width = logits.shape
    row, column = np.divmod(pixels, size[1])
    rows, columns = taps(height, size[0]), taps(width, size[1])
    sources: List[Tuple[np.ndarray, np.ndarray]] = []
    for i in range(len(rows.source)):
        start, row_weight = rows.source[i].take(row) * width, rows.weights[i].take(row)
        for j in range(len(columns.source)):
            sources.append((start + columns.source[j].take(column), row_weight * columns.weights[j].take(column)))
    planes = logits.reshape(classes, height * width)
    winner = np.zeros(len(pixels), np.uint8)
    best = _weighted_sum(planes[0], sources)
    for k in range(1, classes):
        _challenge(winner, best, _weighted_sum(planes[k], sources), k)
    return winner


def _weighted_sum(plane: np.ndarray, sources: List[Tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    total = plane.take(sources[0][0]) * sources[0][1]
    for index, weights in sources[1:]:
        part = plane.take(index)
        part *= weights
        total += part
    return total


def _extreme(choose: np.ufunc, classes: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    found = classes.take(index[0], axis=axis)
    for k in range(1, len(index)):
        choose(found, classes.take(index[k], axis=axis), out=found)
    return found


def _resize_rows(array: np.ndarray, height: int) -> np.ndarray:
    """Return (H, N), uint8 or float32, as float32 (height, N)."""
    if len(array) == height:
        return array.astype(np.float32, copy=False)
    index, weights = taps(len(array), height)
    total = np.multiply(array.take(index[0], axis=0), weights[0][:, None], dtype=np.float32)
    for k in range(1, len(index)):
        total += np.multiply(array.take(index[k], axis=0), weights[k][:, None], dtype=np.float32)
    return total


def _resize_columns(array: np.ndarray, width: int, channels: int = 1) -> np.ndarray:
    """Return (N, W * channels), interleaved, uint8 or float32, as float32 (N, width * channels)."""
    old_width = array.shape[1] // channels
    if old_width == width:
        return array.astype(np.float32, copy=False)
    index, weights = _interleaved_taps(old_width, width, channels)
    total = np.multiply(array.take(index[0], axis=1), weights[0], dtype=np.float32)
    for k in range(1, len(index)):
        total += np.multiply(array.take(index[k], axis=1), weights[k], dtype=np.float32)
    return total


@lru_cache(maxsize=64)
def _interleaved_taps(length: int, new_length: int, channels: int) -> Taps:
    index, weights = taps(length, new_length)
    spread = index[:, :, None] * channels + np.arange(channels)  # (K, new_length, channels)
    return Taps(spread.reshape(len(index), -1), np.repeat(weights, channels, axis=1))


@lru_cache(maxsize=64)
def _nearest(length: int, new_length: int) -> np.ndarray:
    return (2 * np.arange(new_length) + 1) * length // (2 * new_length)

"""Logits to class maps at the image's size, in the same time for every content and without allocating per image.

Logits smaller than the network's input are first resized to the input, as a network's last upsampling does it. From the
input the part that the image covers is resized to the image, and the largest wins. Both resizes are one filter here, so that
only the small logits and the result are read and written.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from edgekd.board.filters import bilinear, placed
from edgekd.board.frame import Frame
from edgekd.board.passes import Axis, has_fast_products
from edgekd.board.team import run_together, shares

# Bytes of resized logits that are compared at a time: one thread's stay in a level-2 cache; several threads make fewer calls, as
# each call takes the interpreter's lock.
_CHUNK_BYTES, _SHARED_CHUNK_BYTES = 512 << 10, 2 << 20
# Values of resized logits from which a further thread is worth waking.
_VALUES_PER_THREAD = 250_000
# Floats between rows, so that rows of 4096 bytes do not share the cache's lines.
_APART = 16
_MOST = np.finfo(np.float32).max / 2  # weights that sum to a little more than one must not reach infinity


def resize_logits(logits: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Return logits (K, h, w) at another size (height, width) as float32 (K, H, W); at their own size themselves."""
    classes, height, width = logits.shape
    if (height, width) == tuple(size):
        return logits
    down = Axis(bilinear(height, size[0]), width, with_products=False, is_across=False)
    across = Axis(bilinear(width, size[1]), size[0], with_products=False, is_across=True)
    tall, whole = (np.empty((classes, size[0], columns), np.float32) for columns in (width, size[1]))
    down.rows(np.ascontiguousarray(logits, np.float32), tall)()
    across.columns(tall, whole)()
    return whole


class ClassMaps:
    """Makes class maps of one size from logits (K, h, w) of at most 256 classes.

    logits_size: (h, w).
    place: where the image lies on the network's input.
    with_products: whether to multiply matrices; None: where numpy does that fast.
    """

    def __init__(
        self,
        classes: int,
        logits_size: Tuple[int, int],
        place: Frame,
        threads: int = 1,
        with_products: Optional[bool] = None,
    ) -> None:
        height, width = self._size = place.image_size
        count = max(1, min(threads, height, classes * height * width // _VALUES_PER_THREAD))
        fast = has_fast_products() if with_products is None else with_products
        chunk_bytes = _CHUNK_BYTES if count == 1 else _SHARED_CHUNK_BYTES
        self._parts = [_Part((classes, *logits_size), place, rows, fast, chunk_bytes) for rows in shares(height, count)]

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return a new class map (H, W) uint8 for logits (K, h, w); the first class wins a tie."""
        found = np.empty(self._size, np.uint8)
        for part in self._parts:
            part.logits, part.found = logits, found
        run_together(self._parts)
        return found


class _Part:
    """Some rows of a class map: reads `logits`, writes into `found` (H, W)."""

    logits: np.ndarray
    found: np.ndarray

    def __init__(
        self, shape: Tuple[int, int, int], place: Frame, rows: Tuple[int, int], with_products: bool, chunk_bytes: int
    ) -> None:
        self._rows = rows
        (classes, height, width), (image_height, image_width) = shape, place.image_size
        whole = placed(height, place.input_size[0], place.top, place.size[0], image_height)
        self._low, down = whole.part(*rows)
        across = placed(width, place.input_size[1], place.left, place.size[1], image_width)
        vertical = Axis(down, image_width, with_products, is_across=False)
        horizontal = Axis(across, down.length, with_products, is_across=True)
        source = np.zeros((classes, vertical.padded, horizontal.padded), np.float32)
        self._source = source[:, vertical.inside, horizontal.inside]
        self._length = down.length
        self._widen = None
        if not across.is_identity:
            apart = _APART if with_products else 0
            wide = np.zeros((classes, vertical.padded, horizontal.new_padded + apart), np.float32)
            wide = wide[:, :, : horizontal.new_padded]
            self._widen = horizontal.columns(source, wide)
            source = wide
        most = max(1, chunk_bytes // (classes * source.shape[2] * 4))
        self._chunks = vertical.row_chunks(source, most)
        self._largest = _Largest(max((chunk.values for chunk in self._chunks), key=np.size).shape)

    def __call__(self) -> None:
        # Infinite logits would spoil their neighbours, which have no weight: 0 times infinity is not a number.
        np.clip(self.logits[:, self._low : self._low + self._length], -_MOST, _MOST, out=self._source)
        if self._widen is not None:
            self._widen()
        start, stop = self._rows
        for chunk in self._chunks:
            chunk.make()
            top = start + chunk.start
            self._largest(chunk.values, self.found[top : min(top + len(chunk), stop)])


class _Largest:
    """Argmax over classes with preallocated buffers, for at most `shape` values (B, K, n, N)."""

    def __init__(self, shape: Tuple[int, ...]) -> None:
        count, classes, rows, width = shape
        self._best = np.empty((count, rows, width), np.float32)
        self._is_best = np.empty(shape, bool)
        self._code = np.empty((count, rows, width), np.uint8)
        self._last = np.uint8(classes - 1)
        # The first class has the largest code, and what is not a number has none and so the last class.
        self._codes = np.arange(255, 255 - classes, -1).astype(np.uint8)[:, None, None]

    def __call__(self, values: np.ndarray, found: np.ndarray) -> None:
        """Write the classes (rows, W) uint8 of values (B, K, n, N); rows and columns beyond `found` are padding."""
        count, _, rows, width = values.shape
        best, code = self._best[:count, :rows], self._code[:count, :rows]
        is_best = self._is_best[:count, :, :rows]
        np.maximum.reduce(values, axis=1, out=best)
        np.equal(values, best[:, None], out=is_best)
        codes = is_best.view(np.uint8)
        np.multiply(codes, self._codes, out=codes)
        np.maximum.reduce(codes, axis=1, out=code)
        height, kept = found.shape
        np.subtract(np.uint8(255), code.reshape(count * rows, width)[:height, :kept], out=found)
        np.minimum(found, self._last, out=found)

"""Label Studio's brush masks: run lengths of the bytes of an RGBA image, packed bit by bit.

Bits, most significant first: 32 for the number of values, 5 for the bits of a value minus one, four times 4 for the bits of a
length minus one. Then, until all values are there: one bit, 1 for a run of one value, 0 for single values; two bits, which of
the four lengths follows; the length minus one; the value, or the values.
Source: label-studio-converter 0.0.59, brush.py (`decode_rle`), after thi.ng/rle-pack.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def decode_brush(runs: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of `size` (height, width): the pixels with an opacity above 0.

    Args:
        runs: the bytes, as a list of whole numbers 0 to 255.
        size: size of the image.

    Raises:
        ValueError: no such list, or one that ends early or is of another size.
    """
    if not isinstance(runs, list) or not all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 256 for v in runs
    ):
        raise ValueError("expected a list of bytes")
    bits = _Bits(bytes(runs))
    count, pixels = bits.read(32), size[0] * size[1]
    if count != 4 * pixels:
        raise ValueError(
            f"expected 4 values for each pixel of a {size[0]}x{size[1]} image (height x width), got {count} values"
        )
    width = bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    mask = np.zeros(count, bool)
    at = 0
    while at < count:
        is_run = bits.read(1)
        end = at + 1 + bits.read(lengths[bits.read(2)])
        if end > count:
            raise ValueError(f"expected {count} values, got more")
        if is_run:
            mask[at:end] = bits.read(width) > 0
        else:
            mask[at:end] = [bits.read(width) > 0 for _ in range(at, end)]
        at = end
    return mask[3::4].reshape(size)


class _Bits:
    """Reads numbers from bytes, bit by bit."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def read(self, count: int) -> int:
        """Return the number in the next bits; ValueError at the end."""
        first, last = self._at // 8, (self._at + count + 7) // 8
        if last > len(self._content):
            raise ValueError("it ends in the middle of a run")
        number = int.from_bytes(self._content[first:last], "big") >> (last * 8 - self._at - count)
        self._at += count
        return number & ((1 << count) - 1)

"""Random integers that are the same on every machine and in every numpy version.

numpy promises stable streams for SeedSequence and for the raw bits of PCG64, not for the methods of Generator, so
everything here is made of raw bits and integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_DRAWN_AT_ONCE = 256


class Dice:
    """A stream of random integers that depends on `key` alone."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(key)))
        self._drawn: list[int] = []

    def between(self, low: int, high: int) -> int:
        """Return an integer in low..high, both included."""
        if not self._drawn:
            self._drawn = self._bits.random_raw(_DRAWN_AT_ONCE).tolist()
        return low + ((self._drawn.pop() >> 32) * (high - low + 1) >> 32)

    def chance(self, percent: int) -> bool:
        """Return True in `percent` of 100 cases."""
        return self.between(0, 99) < percent

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of `choices`, each equally likely."""
        return choices[self.between(0, len(choices) - 1)]

    def array(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return int32 values in low..high, both included."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        scaled = (raw >> np.uint64(32)) * np.uint64(high - low + 1) >> np.uint64(32)
        return scaled.astype(np.int32).reshape(shape) + np.int32(low)

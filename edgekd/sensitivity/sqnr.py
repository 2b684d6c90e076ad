"""Signal-to-quantization-noise ratio in dB, summed over images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


class Sqnr:
    """Sums signal and noise of tensors image by image: 10 log10(sum of x^2 / sum of (x - y)^2).

    Memory does not grow with the number of images.
    """

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}

    def add(self, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> None:
        """Add the tensors of one image: those of the float graph and the same of the quantized one."""
        for name, value in expected.items():
            signal = value.astype(np.float64).ravel()
            noise = signal - got[name].astype(np.float64).ravel()
            sums = np.array([signal @ signal, noise @ noise])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def by_tensor(self) -> dict[str, float]:
        """Return the ratio of each tensor in dB; infinite where there is no noise, minus infinite where it is no number."""
        return {name: _decibel(*sums) for name, sums in self._sums.items()}

    def worst(self) -> float:
        """Return the smallest ratio in dB."""
        return min(self.by_tensor().values())


def _decibel(signal: float, noise: float) -> float:
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf

"""Noise of tensors against their exact values: sums over values and images, and the signal-to-noise ratio in dB.

The ratio is 10 log10(sum of squares of the exact values / sum of squares of the differences). 6 dB are one bit, 3 dB halve the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EQUAL_DB = 200.0  # the ratio of tensors that do not differ; float32 resolves about 150 dB


@dataclass
class Noise:
    """Sums of squares of the exact values and of the differences, over values and images."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        """Add the values of one tensor on one image; a value that is not finite is infinite noise."""
        wanted = expected.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):
            error = got.astype(np.float64).ravel() - wanted
        squares = float(error @ error)
        self.signal += float(wanted @ wanted)
        self.noise += squares if math.isfinite(squares) else math.inf

    @property
    def share(self) -> float:
        """The power of the noise as a fraction of the signal's."""
        if not self.noise:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def db(self) -> float:
        """The ratio of signal and noise in dB, see `to_db`."""
        return to_db(self.share)


def to_db(share: float) -> float:
    """Return a noise share in dB: at most EQUAL_DB, at least -EQUAL_DB."""
    if share <= 0:
        return EQUAL_DB
    return -EQUAL_DB if math.isinf(share) else max(-EQUAL_DB, min(EQUAL_DB, -10 * math.log10(share)))


def to_share(db: float) -> float:
    """Return the noise share of a ratio in dB."""
    return 0.0 if db >= EQUAL_DB else 10 ** (-db / 10)

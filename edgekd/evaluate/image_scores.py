"""Counts or matches of each scored image, which give the score of any resample of the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from edgekd.evaluate.image_counts import PixelCounts
from edgekd.evaluate.object_matches import read_matches

FILE: Final = "image_counts.npz"


class ImageScores(Protocol):
    """Pixel counts of class maps, or matches of objects."""

    @property
    def num_images(self) -> int:
        """Number of scored images."""

    def scores(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Return metric name -> (R,) fractions, NaN where nothing was counted.

        Args:
            draws: (R, N) int, how often each image counts.
        """

    def arrays(self) -> dict[str, np.ndarray]:
        """Return arrays for a file by name."""


def read_image_scores(arrays: Mapping[str, np.ndarray]) -> ImageScores | None:
    """Return the image scores that `ImageScores.arrays` wrote; None for other arrays."""
    counts = arrays.get("counts")
    if counts is None:
        return read_matches(arrays)
    return PixelCounts(counts) if counts.dtype.kind in "ui" and counts.ndim == 3 and counts.shape[1] == 5 else None


def of_all(images: ImageScores) -> dict[str, float]:
    """Return metric name -> score of all images, each counted once."""
    return {name: float(value[0]) for name, value in images.scores(np.ones((1, images.num_images), int)).items()}

"""Pixel counts of each scored image: enough for mIoU, pixel accuracy and boundary IoU of any choice of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.evaluate.boundary import BoundaryCounts
from edgekd.evaluate.confusion import ratio

HITS, TRUTH, PREDICTED, BAND_HITS, BAND_UNION = range(5)


@dataclass(frozen=True)
class PixelCounts:
    """Counts of each image.

    counts: (N, 5, K), see `image_counts`.
    """

    counts: np.ndarray

    @property
    def num_images(self) -> int:
        """Number of scored images."""
        return len(self.counts)

    def scores(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Return metric name -> (R,) fractions, NaN where nothing was counted.

        Args:
            draws: (R, N) int, how often each image counts.
        """
        flat = self.counts.reshape(self.num_images, -1).astype(np.float64)
        return scores((draws @ flat).reshape(-1, *self.counts.shape[1:]))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return arrays for a file."""
        return {"counts": self.counts}


def image_counts(confusion: np.ndarray, boundary: BoundaryCounts) -> np.ndarray:
    """Return the counts of one image, (5, K) uint32.

    The rows are pixels by class: predicted rightly, labelled, predicted, in both boundary bands, in at least one band.

    Args:
        confusion: (K, K), rows truth, columns prediction.
        boundary: band pixels by class.
    """
    rows = (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0), boundary.intersections, boundary.unions)
    return np.stack(rows).astype(np.uint32)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return metric name -> fractions of sums of image counts.

    Args:
        counts: (..., 5, K), each the sum over some images.

    Returns:
        Arrays (...); NaN where nothing was counted. The definitions are those of `semantic.py`.
    """
    hits, truth, predicted = counts[..., HITS, :], counts[..., TRUTH, :], counts[..., PREDICTED, :]
    return {
        "miou": _mean_ratio(hits, truth + predicted - hits),
        "pixel_accuracy": ratio(hits.sum(axis=-1), truth.sum(axis=-1)),
        "boundary_iou": _mean_ratio(counts[..., BAND_HITS, :], counts[..., BAND_UNION, :]),
    }


def _mean_ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the ratios that are defined."""
    ratios = ratio(parts, wholes)
    return ratio(np.nansum(ratios, axis=-1), (~np.isnan(ratios)).sum(axis=-1))

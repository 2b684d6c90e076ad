"""Upper bound of the score under a limit on detections per image: the score of perfect predictions."""

from __future__ import annotations

import numpy as np

RECALLS = 101  # COCO's recall points 0.00, 0.01, ..., 1.00


def best_recalls(counts: np.ndarray, cap: int) -> np.ndarray:
    """Return the recall of each class (K,) when the best `cap` objects of every image are found and nothing else; NaN without
    objects.

    The mean over classes is the highest that the cap allows: every image keeps objects of rare classes first.

    Args:
        counts: (images, K) objects per image and class, without those that evaluation ignores.
        cap: max detections per image, over all classes.
    """
    totals = counts.sum(axis=0)
    found = np.zeros_like(totals)
    room = np.full(len(counts), cap)
    for label in np.argsort(totals, kind="stable"):
        kept = np.minimum(counts[:, label], room)
        room -= kept
        found[label] = kept.sum()
    return np.divide(found, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def best_average_precision(recalls: np.ndarray) -> float:
    """Return the mean over classes of COCO's average precision, when precision is 1 up to these recalls (K,) and 0 beyond."""
    known = recalls[~np.isnan(recalls)]
    points = np.floor(known * (RECALLS - 1) + 1e-9) + 1  # recall points up to each recall, 0 among them
    return float((points / RECALLS).mean()) if known.size else float("nan")

"""Confusion between classes: shares of each true class's pixels by predicted class, and the largest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_CLASSES = 24  # largest matrix on the page; the list of mistakes has no limit
_MISTAKES = 6


@dataclass(frozen=True)
class Mistake:
    """Pixels of class `truth` predicted as class `predicted`, as a fraction of all pixels of `truth`."""

    truth: str
    predicted: str
    share: float


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of one row.

    shares: (true class, its share by predicted class) for the classes that occur; empty for more than MOST_CLASSES.
    mistakes: largest first.
    """

    label: str
    classes: list[str]
    shares: list[tuple[str, list[float]]]
    mistakes: list[Mistake]


def confusion(label: str, matrix: np.ndarray, classes: Sequence[str]) -> Confusion | None:
    """Return the confusion of a row; None for a matrix of other classes, or without a labelled pixel.

    Args:
        label: label of the row.
        matrix: (K, K) int64, rows truth, columns prediction.
        classes: K names.
    """
    if matrix.shape != (len(classes), len(classes)) or not matrix.any():
        return None
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    present = np.flatnonzero(totals[:, 0]).tolist()
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None)[::-1][:_MISTAKES]
    places = [divmod(int(place), len(classes)) for place in order]
    mistakes = [Mistake(classes[i], classes[j], float(wrong[i, j])) for i, j in places if wrong[i, j] > 0]
    rows = [(classes[i], shares[i].tolist()) for i in present] if len(classes) <= MOST_CLASSES else []
    return Confusion(label, list(classes), rows, mistakes)

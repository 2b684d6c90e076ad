"""Confusion matrix and what follows from it: IoU per class, mIoU, pixel accuracy; pure functions.

All counts are over the whole data set: matrices of single images add up, ratios are taken once at the end.
Source: torchmetrics MulticlassJaccardIndex(average="macro", ignore_index=255) and mmseg's IoUMetric; not
torchmetrics.segmentation.MeanIoU, which averages over images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgekd.errors import DataError


def confusion_matrix(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Return how often class i (row, truth) was predicted as class j (column), (K, K) int64.

    Args:
        truth: class indices, uint8; pixels with `ignore_index` are not counted.
        prediction: class indices, uint8, of the same shape; its values under ignored pixels do not matter.

    Raises:
        DataError: shapes differ, or a counted label or prediction is not one of `num_classes`.
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"prediction has shape {prediction.shape}, truth {truth.shape}; images and masks must be of one size"
        )
    kept = truth != ignore_index
    labels, predicted = (truth, prediction) if kept.all() else (truth[kept], prediction[kept])
    _check_range(labels, num_classes, "truth has label")
    _check_range(predicted, num_classes, "prediction has class")
    pairs = labels.astype(np.intp).ravel() * num_classes + predicted.ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Return TP / (TP + FP + FN) of each class, (K,) float64; NaN for a class in neither truth nor prediction."""
    hits = np.diag(matrix)
    return ratio(hits, matrix.sum(axis=0) + matrix.sum(axis=1) - hits)


def miou(matrix: np.ndarray) -> float:
    """Return the mean IoU over the classes that occur in truth or prediction; NaN when nothing was counted."""
    return mean_of_defined(iou_per_class(matrix))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Return the share of labelled pixels that have the right class; NaN when nothing was counted."""
    return float(ratio(np.trace(matrix), matrix.sum()))


def ratio(parts: ArrayLike, wholes: ArrayLike) -> np.ndarray:
    """Return parts / wholes as float64, NaN where the whole is 0."""
    wholes = np.asarray(wholes)
    return np.where(wholes > 0, np.asarray(parts) / np.maximum(wholes, 1), np.nan)


def mean_of_defined(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN when there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _check_range(values: np.ndarray, num_classes: int, what: str) -> None:
    largest = int(values.max(initial=0))
    if largest >= num_classes:
        raise DataError(f"{what} {largest}, expected 0 to {num_classes - 1}; check the class list")

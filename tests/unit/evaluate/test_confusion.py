"""Confusion matrix and IoU by hand and against torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from edgekd.errors import DataError
from edgekd.evaluate.confusion import confusion_matrix, iou_per_class, miou, pixel_accuracy

TRUTH = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
MATRIX = [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_rows_are_truth_and_ignored_pixels_do_not_count() -> None:
    matrix = confusion_matrix(TRUTH, PREDICTION, 4)
    assert matrix.tolist() == MATRIX
    assert matrix.dtype == np.int64


def test_iou_counts_a_class_that_was_only_predicted_and_not_one_that_never_occurred() -> None:
    iou = iou_per_class(np.array(MATRIX))
    assert iou[:3].tolist() == [1 / 2, 2 / 4, 0.0]
    assert math.isnan(iou[3])
    assert miou(np.array(MATRIX)) == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_pixel_accuracy_is_the_trace() -> None:
    assert pixel_accuracy(np.array(MATRIX)) == 3 / 5


def test_nothing_counted_has_no_score() -> None:
    assert math.isnan(miou(np.zeros((2, 2), np.int64)))
    assert math.isnan(pixel_accuracy(np.zeros((2, 2), np.int64)))


def test_another_ignore_index_and_predictions_under_ignored_pixels() -> None:
    truth, prediction = np.array([[0, 1]], np.uint8), np.array([[0, 99]], np.uint8)
    assert confusion_matrix(truth, prediction, 1, ignore_index=1).tolist() == [[1]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("used", [7, 4])
def test_miou_is_torchmetrics_global_jaccard_index(seed: int, used: int) -> None:
    rng = np.random.default_rng(seed)
    metric = MulticlassJaccardIndex(7, average="macro", ignore_index=255)
    total = np.zeros((7, 7), np.int64)
    for _ in range(3):
        truth, prediction = rng.integers(0, used, (2, 20, 30)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.2] = 255
        metric.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
        total += confusion_matrix(truth, prediction, 7)
    assert miou(total) == pytest.approx(float(metric.compute()), abs=1e-6)


def test_label_outside_the_classes_is_named() -> None:
    with pytest.raises(DataError, match="truth has label 37, expected 0 to 10"):
        confusion_matrix(np.full((2, 2), 37, np.uint8), np.zeros((2, 2), np.uint8), 11)


def test_predicted_class_outside_the_classes_is_named() -> None:
    with pytest.raises(DataError, match="prediction has class 11, expected 0 to 10"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 11, np.uint8), 11)


def test_other_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"prediction has shape \(2, 2\), truth \(2, 3\)"):
        confusion_matrix(TRUTH, PREDICTION[:, :2], 4)

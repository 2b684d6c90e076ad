"""Components by hand, and their labels against OpenCV class by class."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekd.evaluate.connectivity import component_counts, label_components


def test_diagonal_neighbours_are_two_components() -> None:
    class_map = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], np.uint8)
    count, labels = label_components(class_map)
    assert count == 4  # two of class 1; class 0 is cut by the diagonal
    assert labels[0, 0] != labels[1, 1]
    assert labels[1, 1] == labels[1, 2] == labels[2, 2]
    assert labels[0, 1] == labels[0, 2]
    assert labels[1, 0] == labels[2, 1] != labels[0, 1]
    assert labels.min() == 1


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_all_classes_at_once_are_those_of_each_class(seed: int) -> None:
    class_map = np.random.default_rng(seed).integers(0, 3, (23, 30)).astype(np.uint8)
    count, labels = label_components(class_map)
    total = 0
    for c in range(3):
        mask = class_map == c
        own_count, own = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        total += own_count - 1
        pairs = set(zip(labels[mask].tolist(), own[mask].tolist(), strict=True))
        assert len(pairs) == own_count - 1  # a one-to-one renaming
    assert count == total


def test_invented_and_lost_regions_are_counted_by_class() -> None:
    truth = np.zeros((10, 20), np.uint8)
    truth[2:6, 2:6] = 1  # found, shifted
    truth[2:6, 12:16] = 1  # lost
    prediction = np.zeros((10, 20), np.uint8)
    prediction[3:7, 2:6] = 1
    prediction[7:10, 10:12] = 2  # invented
    counts = component_counts(truth, prediction, 4)
    assert counts.predicted.tolist() == [1, 1, 1, 0]
    assert counts.spurious.tolist() == [0, 0, 1, 0]
    assert counts.true.tolist() == [1, 2, 0, 0]
    assert counts.missing.tolist() == [0, 1, 0, 0]


def test_a_tenth_of_the_pixels_is_a_counterpart_and_less_is_not() -> None:
    truth = np.zeros((2, 30), np.uint8)
    prediction = truth.copy()
    truth[0, 1:11] = 1
    prediction[0, 10:20] = 1  # one of ten pixels in common
    assert component_counts(truth, prediction, 2).missing.tolist() == [0, 0]
    assert component_counts(truth, prediction, 2).spurious.tolist() == [0, 0]
    truth[0, 11] = prediction[0, 9] = 0
    truth[0, 0] = prediction[0, 20] = 1  # one of eleven
    assert component_counts(truth, prediction, 2).missing.tolist() == [0, 1]
    assert component_counts(truth, prediction, 2).spurious.tolist() == [0, 1]


def test_components_under_four_pixels_are_not_counted() -> None:
    truth = np.zeros((6, 6), np.uint8)
    prediction = truth.copy()
    prediction[0, :3] = 1
    prediction[3, :4] = 1
    counts = component_counts(truth, prediction, 2)
    assert counts.predicted.tolist() == [1, 1]
    assert counts.spurious.tolist() == [0, 1]


def test_a_predicted_region_is_not_cut_by_ignored_pixels_and_they_are_not_its_area() -> None:
    truth = np.zeros((3, 24), np.uint8)
    truth[:, 10:12] = 255
    prediction = np.zeros((3, 24), np.uint8)
    prediction[1, 8:15] = 1  # five labelled pixels, all wrong, on both sides of the ignored ones
    assert component_counts(truth, prediction, 2).predicted.tolist() == [1, 1]
    assert component_counts(truth, prediction, 2).spurious.tolist() == [0, 1]
    prediction[1, 13:15] = 0  # three are left
    assert component_counts(truth, prediction, 2).predicted.tolist() == [1, 0]


def test_a_region_predicted_only_under_ignored_pixels_is_not_counted() -> None:
    truth = np.full((4, 9), 255, np.uint8)
    truth[:, :4] = 0
    prediction = np.zeros((4, 9), np.uint8)
    prediction[:, 5:] = 1  # only under ignored pixels
    counts = component_counts(truth, prediction, 2)
    assert counts.predicted.tolist() == [1, 0]
    assert counts.true.tolist() == [1, 0]
    assert counts.spurious.tolist() == counts.missing.tolist() == [0, 0]


def test_a_single_row_and_a_single_pixel_have_components() -> None:
    assert label_components(np.array([[1, 1, 0, 1]], np.uint8))[1].tolist() == [[1, 1, 2, 3]]
    assert label_components(np.array([[5]], np.uint8))[1].tolist() == [[1]]

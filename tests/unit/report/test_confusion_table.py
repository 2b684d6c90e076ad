"""The confusion matrix of the page: shares of the true class, the largest mistakes first."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.report.confusion import MOST_CLASSES, Mistake, confusion


def test_shares_are_of_the_true_class_and_mistakes_are_ordered_by_them() -> None:
    matrix = np.array([[8, 2, 0], [30, 70, 0], [0, 0, 0]])
    found = confusion("student", matrix, ["road", "car", "never"])
    assert found is not None
    assert found.shares == [("road", [0.8, 0.2, 0.0]), ("car", [0.3, 0.7, 0.0])]
    assert found.mistakes == [Mistake("car", "road", 0.3), Mistake("road", "car", 0.2)]


def test_many_classes_have_their_mistakes_and_no_matrix() -> None:
    count = MOST_CLASSES + 1
    matrix = np.eye(count, dtype=np.int64)
    matrix[3, 5] = 1
    found = confusion("student", matrix, [f"class {i}" for i in range(count)])
    assert found is not None
    assert found.shares == []
    assert found.mistakes == [Mistake("class 3", "class 5", pytest.approx(0.5))]


def test_a_matrix_of_other_classes_or_without_pixels_is_none() -> None:
    assert confusion("x", np.eye(2, dtype=int), ["a", "b", "c"]) is None
    assert confusion("x", np.zeros((2, 2), int), ["a", "b"]) is None

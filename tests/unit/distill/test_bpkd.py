"""Boundary-privileged distillation."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from edgekd.distill.methods import bpkd, cwd
from edgekd.distill.methods.bpkd import edge_cells
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, outputs, random_map, terms

PIXELS = bpkd.Options(edge=1.0, body=1.0, radius=1, stride=1)
KL = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)


def bands_by_loops(masks: np.ndarray, classes: int, stride: int, radius: int) -> np.ndarray:
    """Dilation minus erosion per class in windows of 2 radius + 1, then any over the pixels of a cell."""
    images, height, width = masks.shape
    cells = np.zeros((images, classes, height // stride, width // stride), dtype=bool)
    for image, y, x, c in np.ndindex(images, height // stride * stride, width // stride * stride, classes):
        rows = slice(max(0, y - radius), y + radius + 1)
        window = masks[image, rows, max(0, x - radius) : x + radius + 1]
        window = window[window != 255]
        if (window == c).any() and (window != c).any():
            cells[image, c, y // stride, x // stride] = True
    return cells


@pytest.mark.parametrize(("stride", "radius"), [(1, 1), (1, 3), (4, 3), (8, 3)])
def test_edge_cells_are_those_of_dilation_minus_erosion(stride: int, radius: int) -> None:
    random = np.random.default_rng(stride + radius)
    masks = random.integers(0, 3, (2, 4, 6)).repeat(5, axis=1).repeat(5, axis=2)  # blocks of 5 x 5 pixels
    masks[0, 3:9, 4:17] = 255
    ours = edge_cells(torch.from_numpy(masks), 3, stride, radius)
    np.testing.assert_array_equal(ours.numpy(), bands_by_loops(masks, 3, stride, radius))


def test_a_border_with_unlabelled_pixels_or_the_frame_is_none() -> None:
    masks = torch.tensor([[[0, 0, 255, 255, 1, 1]]])
    assert not edge_cells(masks, 2, stride=1, radius=1).any()


def test_the_edge_is_the_mean_over_classes_of_the_mean_over_their_bands() -> None:
    # Labels 0 0 1 2 2 2 with radius 1: bands {1, 2} of class 0, {1, 2, 3} of class 1 and {2, 3} of class 2.
    # Teacher and student disagree at pixel 1 alone: 1/2, 1/3 and 0 of it.
    teacher, student = torch.zeros(1, 2, 1, 6), torch.zeros(1, 2, 1, 6)
    teacher[0, 1, 0, 1] = log(3)
    value = terms(bpkd, outputs(logits=teacher), outputs(logits=student), batch([[[0, 0, 1, 2, 2, 2]]]), PIXELS)
    assert value["edge"] == pytest.approx(KL * (1 / 2 + 1 / 3 + 0) / 3, rel=1e-5)
    # Labels 0 0 1 1 1 1: bands {1, 2} of both classes that are there; class 2 has no border and does not count.
    value = terms(bpkd, outputs(logits=teacher), outputs(logits=student), batch([[[0, 0, 1, 1, 1, 1]]]), PIXELS)
    assert value["edge"] == pytest.approx(KL / 2, rel=1e-5)
    assert value["body"] == 0.0


def test_the_body_is_cwd_over_the_cells_that_are_not_in_the_band() -> None:
    teacher, student = random_map(1, 2, 3, 4, 6), random_map(2, 2, 3, 4, 6)
    masks = torch.zeros(2, 4, 6, dtype=torch.int64)
    masks[:, :, 3:] = 1
    body = terms(bpkd, outputs(logits=teacher), outputs(logits=student), batch(masks), PIXELS)["body"]
    masks[:, :, 2:4] = 255  # the band of radius 1
    oracle = terms(cwd, outputs(logits=teacher), outputs(logits=student), batch(masks), cwd.Options(1.0, 1))
    assert body == pytest.approx(oracle["channels"], rel=1e-5)


def test_an_image_of_one_class_has_no_edge_and_all_body() -> None:
    teacher, student = random_map(1, 1, 3, 4, 6), random_map(2, 1, 3, 4, 6)
    value = terms(bpkd, outputs(logits=teacher), outputs(logits=student), labelled(1, 4, 6), PIXELS)
    assert value["edge"] == 0.0
    assert value["body"] > 0


def test_a_student_that_equals_its_teacher_or_differs_by_a_constant_has_nothing_to_learn() -> None:
    teacher = random_map(1, 1, 3, 4, 6)
    masks = torch.zeros(1, 4, 6, dtype=torch.int64)
    masks[:, :, 3:] = 1
    value = terms(bpkd, outputs(logits=teacher), outputs(logits=teacher + 5), batch(masks), PIXELS)
    assert value == {"edge": pytest.approx(0, abs=1e-6), "body": pytest.approx(0, abs=1e-6)}


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"bpkd\.stride: expected 1 or more, got 0"):
        bpkd.Options(stride=0)
    with pytest.raises(RecipeError, match=r"bpkd\.radius: expected 1 or more, got 0"):
        bpkd.Options(radius=0)

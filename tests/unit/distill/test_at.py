"""Attention transfer."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.methods import at
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch as batch_of
from tests.unit.distill.maps import labelled, outputs, random_map, terms

# Energies (3, 4) and (4, 3): attention (0.6, 0.8) and (0.8, 0.6), squared distance 0.08.
TEACHER = torch.tensor([3.0, 4.0]).sqrt().view(1, 1, 1, 2)
STUDENT = torch.tensor([4.0, 3.0]).sqrt().view(1, 1, 1, 2)
ONE_STAGE = at.Options(attention=1.0, strides=(8,))


def distance(teacher: torch.Tensor, student: torch.Tensor, masks: object, options: at.Options = ONE_STAGE) -> float:
    return terms(at, outputs(features={8: teacher}), outputs(features={8: student}), batch_of(masks), options)[
        "attention"
    ]


def test_the_value_is_the_squared_distance_of_unit_vectors() -> None:
    assert distance(TEACHER, STUDENT, [[[0, 0]]]) == pytest.approx(0.08, rel=1e-5)
    assert distance(TEACHER, STUDENT, [[[0, 0]]], at.Options(strides=(8,))) == pytest.approx(1.22 * 0.08, rel=1e-5)


def test_neither_scale_nor_sign_nor_order_nor_number_of_channels_matters() -> None:
    teacher, student = random_map(1, 2, 5, 4, 6), random_map(2, 2, 3, 4, 6)
    masks = labelled(2, 32, 48).masks
    plain = distance(teacher, student, masks)
    assert distance(9 * teacher, -0.1 * student.flip(1), masks) == pytest.approx(plain, rel=1e-4)
    assert distance(teacher, student.repeat(1, 4, 1, 1), masks) == pytest.approx(plain, rel=1e-4)
    assert distance(teacher, -7 * teacher, masks) == pytest.approx(0, abs=1e-6)


def test_an_ignored_cell_is_in_neither_vector() -> None:
    loud = torch.full((1, 1, 1, 1), 50.0)
    teacher, student = torch.cat([TEACHER, loud], dim=3), torch.cat([STUDENT, -loud / 9], dim=3)
    assert distance(teacher, student, [[[0, 0, 255]]]) == pytest.approx(0.08, rel=1e-5)


def test_an_image_without_labels_is_not_in_the_mean() -> None:
    teacher, student = TEACHER.repeat(2, 1, 1, 1), STUDENT.repeat(2, 1, 1, 1)
    assert distance(teacher, student, [[[0, 0]], [[255, 255]]]) == pytest.approx(0.08, rel=1e-5)


def test_the_finer_map_is_averaged_and_stages_are_averaged() -> None:
    # Stride 16 of the student meets the teacher's stride 8, whose pairs of cells average to TEACHER; stride 8 agrees.
    fine = TEACHER.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    fine = fine + torch.tensor([[0.5, -0.5, 0.25, -0.25], [-0.5, 0.5, -0.25, 0.25]])
    student = outputs(features={8: fine, 16: STUDENT})
    value = terms(at, outputs(features={8: fine}), student, labelled(1, 16, 32), at.Options(1.0, (8, 16)))
    assert value["attention"] == pytest.approx(0.08 / 2, rel=1e-5)


def test_a_stage_that_is_missing_is_named() -> None:
    with pytest.raises(RecipeError, match=r"at\.strides: the student has features at strides \[8\], got \[64\]"):
        distance(TEACHER, STUDENT, [[[0, 0]]], at.Options(strides=(64,)))
    with pytest.raises(RecipeError, match="this teacher shows no feature maps"):
        terms(at, outputs(), outputs(features={8: STUDENT}), labelled(1, 8, 8), ONE_STAGE)

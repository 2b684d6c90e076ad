"""Hint regression."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.methods import fitnets
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, method, outputs, random_map, terms


def test_the_value_is_the_error_relative_to_the_teachers_mean_square() -> None:
    teacher, student = outputs(torch.tensor([[[[2.0, 4.0]]]])), outputs(torch.tensor([[[[1.0, 3.0]]]]))
    made = method(fitnets, teacher, student)
    with torch.no_grad():
        made.adapter.weight.fill_(2.0)
        made.adapter.bias.fill_(1.0)
    # 2 F + 1 = (3, 7): errors 1 and 9, mean 5; the teacher's mean square is (4 + 16) / 2 = 10.
    assert made(teacher, student, labelled(1, 1, 2))["features"].item() == pytest.approx(0.5)
    assert made(teacher, student, batch([[[0, 255]]]))["features"].item() == pytest.approx(1 / 4)


def test_a_student_that_answers_nothing_has_a_loss_of_one_for_every_teacher() -> None:
    teacher, student = random_map(1, 2, 4, 3, 5), random_map(2, 2, 3, 3, 5)
    for scale in (0.1, 30.0):
        made = method(fitnets, outputs(scale * teacher), outputs(student))
        torch.nn.init.zeros_(made.adapter.weight)
        torch.nn.init.zeros_(made.adapter.bias)
        loss = made(outputs(scale * teacher), outputs(student), labelled(2, 12, 20))["features"]
        assert loss.item() == pytest.approx(1.0, rel=1e-5)


def test_an_equal_student_with_the_identity_as_adapter_has_nothing_to_learn() -> None:
    same = outputs(random_map(1, 2, 4, 3, 5))
    made = method(fitnets, same, same)
    with torch.no_grad():
        made.adapter.weight.copy_(torch.eye(4).view(4, 4, 1, 1))
        made.adapter.bias.zero_()
    assert made(same, same, labelled(2, 12, 20))["features"].item() == pytest.approx(0, abs=1e-10)


def test_the_order_of_the_students_channels_is_the_adapters_affair() -> None:
    teacher, student = random_map(1, 1, 4, 3, 5), random_map(2, 1, 3, 3, 5)
    made = method(fitnets, outputs(teacher), outputs(student))
    before = made(outputs(teacher), outputs(student), labelled(1, 3, 5))["features"].item()
    with torch.no_grad():
        made.adapter.weight.copy_(made.adapter.weight.flip(1))
    after = made(outputs(teacher), outputs(student.flip(1)), labelled(1, 3, 5))["features"].item()
    assert after == pytest.approx(before, rel=1e-5)


def test_the_adapter_learns_what_least_squares_finds() -> None:
    """On a map that is a linear function of the student's, the adapter alone reaches zero."""
    student = random_map(2, 1, 3, 4, 4)
    teacher = torch.einsum("tc,bchw->bthw", random_map(3, 5, 3), student) + 0.5
    made = method(fitnets, outputs(teacher), outputs(student))
    optimizer = torch.optim.LBFGS(made.parameters(), max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = made(outputs(teacher), outputs(student), labelled(1, 4, 4))["features"]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() < 1e-5


def test_the_backbone_is_compared_at_its_coarsest_stage_on_the_coarser_grid() -> None:
    teacher = outputs(features={4: torch.zeros(1, 9, 8, 8), 8: torch.full((1, 2, 4, 4), 3.0)})
    student = outputs(features={16: torch.ones(1, 1, 2, 2)})
    made = method(fitnets, teacher, student, fitnets.Options(at="backbone"))
    assert made.adapter.weight.shape == (2, 1, 1, 1)
    torch.nn.init.ones_(made.adapter.weight)
    torch.nn.init.ones_(made.adapter.bias)  # 2 everywhere, 3 is wanted
    assert made(teacher, student, labelled(1, 32, 32))["features"].item() == pytest.approx(1 / 9)


def test_a_teacher_without_feature_maps_is_refused() -> None:
    student = outputs(features={16: torch.ones(1, 1, 2, 2)})
    with pytest.raises(RecipeError, match="fitnets: this network shows no feature maps; give it `taps` or set at"):
        terms(fitnets, outputs(), student, labelled(1, 32, 32), fitnets.Options(at="backbone"))

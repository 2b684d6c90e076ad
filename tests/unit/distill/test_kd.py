"""Logit distillation."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch.nn import functional as F

from edgekd.distill.logits import pixel_kl

# softmax of (0, ln 3) is (1/4, 3/4); the student says (1/2, 1/2).
TEACHER = torch.tensor([[[[0.0, 0.3]], [[log(3), 0.7]]]])  # (1, 2, 1, 2)
STUDENT = torch.tensor([[[[0.0, 0.3]], [[0.0, 0.7]]]])  # the second pixel agrees
ONE_PIXEL = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)
BOTH = torch.ones(1, 1, 2, dtype=torch.bool)


def test_the_value_is_the_mean_over_pixels() -> None:
    assert pixel_kl(TEACHER, STUDENT, BOTH, 1.0).item() == pytest.approx(ONE_PIXEL / 2, rel=1e-6)


def test_an_ignored_pixel_leaves_the_mean() -> None:
    first = torch.tensor([[[True, False]]])
    assert pixel_kl(TEACHER, STUDENT, first, 1.0).item() == pytest.approx(ONE_PIXEL, rel=1e-6)
    assert pixel_kl(TEACHER, STUDENT, ~first, 1.0).item() == pytest.approx(0.0, abs=1e-7)


def test_temperature_divides_the_logits_and_its_square_multiplies_the_loss() -> None:
    assert pixel_kl(2 * TEACHER, 2 * STUDENT, BOTH, 2.0).item() == pytest.approx(4 * ONE_PIXEL / 2, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_agrees_with_torch_kl_div(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, 5, 3, 4, generator=random) * 3 for _ in range(2))
    pixels = [z.permute(0, 2, 3, 1).reshape(-1, 5) / temperature for z in (teacher, student)]
    oracle = F.kl_div(pixels[1].log_softmax(1), pixels[0].softmax(1), reduction="batchmean") * temperature**2
    ours = pixel_kl(teacher, student, torch.ones(2, 3, 4, dtype=torch.bool), temperature)
    assert ours.item() == pytest.approx(oracle.item(), rel=1e-5)


def test_the_gradient_at_temperature_one_is_the_difference_of_probabilities() -> None:
    student = STUDENT.clone().requires_grad_()
    pixel_kl(TEACHER, student, BOTH, 1.0).backward()
    assert student.grad is not None
    expected = torch.tensor([[[[0.25, 0.0]], [[-0.25, 0.0]]]]) / 2
    torch.testing.assert_close(student.grad, expected, atol=1e-6, rtol=0)


def test_a_constant_added_to_the_logits_of_a_pixel_changes_nothing() -> None:
    shifted = STUDENT + torch.tensor([7.0, -3.0])
    assert pixel_kl(TEACHER, shifted, BOTH, 1.0).item() == pytest.approx(ONE_PIXEL / 2, rel=1e-5)

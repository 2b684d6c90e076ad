"""DIST."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.base import Pyramid
from edgekd.distill.methods import dist
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, outputs, random_map, terms

PIXELS = dist.Options(stride=1)


def values(teacher: torch.Tensor, student: torch.Tensor, masks: object, options: dist.Options) -> dict[str, float]:
    return terms(dist, outputs(logits=teacher), outputs(logits=student), batch(masks), options)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_it_is_one_minus_numpys_correlation(tau: float) -> None:
    teacher, student = random_map(1, 2, 4, 3, 5), random_map(2, 2, 4, 3, 5)
    masks = torch.zeros(2, 3, 5, dtype=torch.int64)
    masks[0, 1:, 2:] = 255
    labelled_pixels = (masks != 255).flatten()
    y_t, y_s = (
        (z / tau).softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 4)[labelled_pixels].numpy() for z in (teacher, student)
    )
    inter = np.mean([1 - np.corrcoef(t, s)[0, 1] for t, s in zip(y_t, y_s, strict=True)])
    intra = np.mean([1 - np.corrcoef(t, s)[0, 1] for t, s in zip(y_t.T, y_s.T, strict=True)])
    got = values(teacher, student, masks, dist.Options(inter=2.0, intra=3.0, temperature=tau, stride=1))
    assert got == {
        "inter": pytest.approx(2 * tau**2 * inter, rel=1e-4),
        "intra": pytest.approx(3 * tau**2 * intra, rel=1e-4),
    }


def test_a_less_certain_student_with_the_same_preferences_is_perfect() -> None:
    teacher = random_map(1, 2, 4, 3, 5)
    hesitant = (0.5 * teacher.softmax(dim=1) + 0.5 / 4).log()
    masks = labelled(2, 3, 5).masks
    assert values(teacher, hesitant, masks, PIXELS) == {
        "inter": pytest.approx(0, abs=1e-5),
        "intra": pytest.approx(0, abs=1e-5),
    }
    # ... and the opposite preference is the worst there is: 1 - r = 2.
    opposite = (0.5 - 0.5 * teacher.softmax(dim=1)).log()
    assert values(teacher, opposite, masks, PIXELS)["inter"] == pytest.approx(2, rel=1e-4)


def test_a_class_that_the_teacher_never_varies_is_left_out() -> None:
    teacher = torch.cat([random_map(1, 1, 2, 3, 5), torch.full((1, 1, 3, 5), -60.0)], dim=1)
    student = torch.cat([random_map(2, 1, 2, 3, 5), torch.full((1, 1, 3, 5), -60.0)], dim=1)
    masks = labelled(1, 3, 5).masks
    with_it, without = (
        values(t, s, masks, PIXELS)["intra"] for t, s in ((teacher, student), (teacher[:, :2], student[:, :2]))
    )
    assert with_it == pytest.approx(without, rel=1e-4)


def test_cells_are_the_means_of_their_labelled_pixels() -> None:
    coarse_t, coarse_s = random_map(1, 1, 4, 2, 3), random_map(2, 1, 4, 2, 3)
    fine_t, fine_s = (x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).clone() for x in (coarse_t, coarse_s))
    masks = torch.zeros(1, 8, 12, dtype=torch.int64)
    masks[:, ::4, :] = 255
    fine_t[:, :, ::4, :], fine_s[:, :, ::4, :] = 40.0, -40.0
    coarse = values(coarse_t, coarse_s, labelled(1, 2, 3).masks, PIXELS)
    fine = values(fine_t, fine_s, masks, dist.Options(stride=4))
    assert fine == {name: pytest.approx(value, rel=1e-4) for name, value in coarse.items()}


def test_two_classes_have_no_correlation_over_classes() -> None:
    """(p, 1 - p) and (q, 1 - q) are on one line: r is 1 or -1, and no gradient tells how far p is from q."""
    teacher, student = random_map(1, 1, 2, 3, 5), random_map(2, 1, 2, 3, 5)
    two = Pyramid({}, 8, num_classes=2)
    made = dist.Method(PIXELS, two, two)
    assert list(made(outputs(logits=teacher), outputs(logits=student), labelled(1, 3, 5))) == ["intra"]
    with pytest.raises(RecipeError, match="dist.intra: expected a weight above 0 for two classes"):
        dist.Method(dist.Options(intra=0), two, two)


def test_a_uniform_student_has_a_bounded_gradient() -> None:
    student = torch.zeros(1, 4, 3, 5, requires_grad=True)
    four = Pyramid({}, 8, num_classes=4)
    made = dist.Method(PIXELS, four, four)
    sum(made(outputs(logits=random_map(1, 1, 4, 3, 5)), outputs(logits=student), labelled(1, 3, 5)).values()).backward()
    assert student.grad is not None
    assert 0 < student.grad.abs().max() < 1e4

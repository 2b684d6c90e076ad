"""Logit distillation of detectors: by hand."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor

from edgekd.distill.base import Pyramid
from edgekd.distill.methods.ld import Method, Options
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS
from edgekd.train.batch import Batch

PYRAMID = Pyramid({8: 4}, 4, 1, level_strides=(8,))


def heads(score: float, bins: list[float] | None = None, stride: int = 8, **more: Tensor) -> Outputs:
    """Return one point of one level with one class; `bins` are the logits of each side's distribution."""
    boxes = torch.tensor(bins or [0.0] * BINS).repeat(4).view(1, 4 * BINS, 1, 1)
    found = {f"scores_{stride}": torch.full((1, 1, 1, 1), score), f"boxes_{stride}": boxes, **more}
    return Outputs(found, {}, torch.zeros(1, 4, 1, 1))


def terms(teacher: Outputs, student: Outputs, labelled: bool = True, **options: float) -> dict[str, float]:
    masks = torch.full((1, 8, 8), 0 if labelled else 255)
    method = Method(Options(**options), PYRAMID, PYRAMID)  # type: ignore[arg-type]
    return {
        name: value.item() for name, value in method(teacher, student, Batch(torch.zeros(1, 3, 8, 8), masks)).items()
    }


def test_the_score_term_by_hand() -> None:
    got = terms(heads(log(3.0)), heads(0.0))  # p^T = 3/4, p^S = 1/2
    excess = log(2) - (-0.75 * log(0.75) - 0.25 * log(0.25))
    assert got["scores"] == pytest.approx((0.25**2) * excess / 0.75, rel=1e-5)
    assert got["boxes"] == pytest.approx(0, abs=1e-6)


def test_the_exponent_of_the_scores_weight_by_hand() -> None:
    excess = log(2) - (-0.75 * log(0.75) - 0.25 * log(0.25))
    for focus in (0.0, 0.5, 1.0):
        got = terms(heads(log(3.0)), heads(0.0), focus=focus)
        assert got["scores"] == pytest.approx((0.25**focus) * excess / 0.75, rel=1e-5)


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0, 2.0])
def test_scores_that_agree_give_no_loss_and_a_finite_gradient(focus: float) -> None:
    student = heads(1.0)
    student.heads["scores_8"].requires_grad_()
    method = Method(Options(focus=focus), PYRAMID, PYRAMID)
    loss = method(heads(1.0), student, Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8)))["scores"]
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.heads["scores_8"].grad is not None
    assert student.heads["scores_8"].grad.abs().max().item() == pytest.approx(0, abs=1e-6)


def test_the_box_term_by_hand() -> None:
    sharp = [0.0] * BINS
    sharp[3] = 2 * log(16.0)  # at T = 2: 16 against 16 ones, so 1/2 and 1/32 each
    got = terms(heads(0.0, sharp), heads(0.0), temperature=2.0, boxes=1.0)
    kl = 0.5 * log(0.5 * 17) + 0.5 * log(17 / 32)
    assert got["boxes"] == pytest.approx(4 * kl, rel=1e-4)


def test_masks_agree_when_prototypes_are_swapped_with_their_coefficients() -> None:
    torch.manual_seed(0)
    prototypes, mix = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 1, 1)
    order = [2, 0, 1]
    one = heads(1.0, coefficients_8=mix, prototypes=prototypes)
    other = heads(1.0, coefficients_8=mix[:, order], prototypes=prototypes[:, order])
    assert terms(one, other)["masks"] == pytest.approx(0, abs=1e-6)
    assert terms(one, heads(1.0, coefficients_8=-mix, prototypes=prototypes))["masks"] > 0.1


def test_only_labelled_cells_in_the_teachers_box_count_in_the_mask_term() -> None:
    """The box reaches from the middle (4, 4) one pixel to every side, so over the four middle cells of 4x4."""
    eighth = [20.0 if number == 0 else 20.0 + log(1 / 7) if number == 1 else -20.0 for number in range(BINS)]
    mix, agree = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 4, 4)
    inside, outside = agree.clone(), agree.clone()
    inside[0, 0, 1, 1], outside[0, 0, 0, 0] = log(3.0), log(3.0)  # m^S of 3/4 where m^T is 1/2
    teacher, exact, other, away = (
        heads(1.0, eighth, coefficients_8=mix, prototypes=prototypes) for prototypes in (agree, agree, inside, outside)
    )
    assert terms(teacher, exact)["masks"] == pytest.approx(0, abs=1e-6)
    assert terms(teacher, away)["masks"] == pytest.approx(0, abs=1e-6)
    excess = -0.5 * log(0.75) - 0.5 * log(0.25) - log(2)
    assert terms(teacher, other)["masks"] == pytest.approx(excess / 4, rel=1e-5)
    masks = torch.zeros(1, 8, 8)
    masks[:, 2:4, 2:4] = 255  # the cell that differs
    found = Method(Options(), PYRAMID, PYRAMID)(teacher, other, Batch(torch.zeros(1, 3, 8, 8), masks))
    assert found["masks"].item() == pytest.approx(0, abs=1e-6)


def test_the_mask_term_weighs_images_by_what_the_teacher_sees_in_them() -> None:
    """Scores of 3/4 and 1/4: the masks differ in the first image alone, which has three quarters of the weight."""
    mix, agree = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 4, 4)
    differ = torch.full((1, 1, 4, 4), log(3.0))
    wide = [20.0 if number == 1 else -20.0 for number in range(BINS)]  # the box is the whole image

    def pair(first: Tensor, second: Tensor) -> Outputs:
        one, other = (
            heads(score, wide, coefficients_8=mix, prototypes=prototypes)
            for score, prototypes in ((log(3.0), first), (-log(3.0), second))
        )
        both = {name: torch.cat([one.heads[name], other.heads[name]]) for name in one.heads}
        return Outputs(both, {}, torch.zeros(2, 4, 1, 1))

    batch = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8))
    found = Method(Options(), PYRAMID, PYRAMID)(pair(agree, agree), pair(differ, agree), batch)
    excess = -0.5 * log(0.75) - 0.5 * log(0.25) - log(2)
    assert found["masks"].item() == pytest.approx(0.75 * excess, rel=1e-5)


def test_padding_teaches_nothing() -> None:
    sharp = [0.0] * BINS
    sharp[3] = 5.0
    assert set(terms(heads(2.0, sharp), heads(0.0), labelled=False).values()) == {0.0}


def test_the_levels_that_both_have_are_compared() -> None:
    teacher, student = (replace(PYRAMID, level_strides=strides) for strides in ((4, 8), (8, 16)))
    both = [
        Outputs(heads(score).heads | heads(other, stride=stride).heads, {}, torch.zeros(1, 4, 1, 1))
        for score, other, stride in ((log(3.0), 5.0, 4), (0.0, -5.0, 16))
    ]
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8))
    found = Method(Options(), teacher, student)(*both, batch)
    assert found["scores"].item() == pytest.approx(terms(heads(log(3.0)), heads(0.0))["scores"])


def test_other_levels_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"ld: expected detectors whose pyramids share a level, got .*\[8\]"):
        Method(Options(), PYRAMID, replace(PYRAMID, level_strides=(16,)))


def test_a_teacher_with_heads_of_its_own_is_refused_before_any_work() -> None:
    with pytest.raises(
        RecipeError, match="ld: expected a teacher with edgedet's heads, got one with its own; use bckd"
    ):
        Method(Options(), replace(PYRAMID, has_heads=False), PYRAMID)

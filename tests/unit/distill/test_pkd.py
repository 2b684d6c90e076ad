"""Pearson distillation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.base import Pyramid
from edgekd.distill.methods import pkd
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from tests.unit.distill.maps import batch, labelled, method, outputs, random_map, terms


def correlations(teacher: torch.Tensor, student: torch.Tensor, valid: np.ndarray) -> list[float]:
    t, s = (x.permute(1, 0, 2, 3).flatten(1).numpy()[:, valid] for x in (teacher, student))
    return [np.corrcoef(a, b)[0, 1] for a, b in zip(t, s, strict=True)]


def test_it_is_one_minus_numpys_correlation_per_channel_over_the_batch() -> None:
    teacher, student = random_map(1, 3, 4, 5, 6), random_map(2, 3, 4, 5, 6)
    masks = torch.zeros(3, 5, 6, dtype=torch.int64)
    masks[0, 2:] = 255
    masks[1] = 255
    value = terms(pkd, outputs(teacher), outputs(student), batch(masks))["features"]
    expected = 1 - np.mean(correlations(teacher, student, (masks != 255).flatten().numpy()))
    assert value == pytest.approx(expected, rel=1e-5)


def test_it_is_half_the_squared_error_of_the_z_scores() -> None:
    teacher, student = random_map(1, 2, 4, 5, 6), random_map(2, 2, 4, 5, 6)
    z_t, z_s = (
        (x - x.mean(dim=(0, 2, 3), keepdim=True)) / x.std(dim=(0, 2, 3), keepdim=True, correction=0)
        for x in (teacher, student)
    )
    value = terms(pkd, outputs(teacher), outputs(student), labelled(2, 5, 6), pkd.Options(features=6.0))["features"]
    assert value == pytest.approx(6 * (z_s - z_t).square().mean().item() / 2, rel=1e-5)


def test_every_channel_may_have_its_own_scale_and_offset() -> None:
    teacher = random_map(1, 2, 4, 5, 6)
    student = teacher * torch.tensor([0.1, 1.0, 20.0, 3.0]).view(1, 4, 1, 1) + random_map(2, 1, 4, 1, 1)
    assert terms(pkd, outputs(teacher), outputs(student), labelled(2, 5, 6))["features"] == pytest.approx(0, abs=1e-5)
    assert terms(pkd, outputs(teacher), outputs(-student), labelled(2, 5, 6))["features"] == pytest.approx(2, rel=1e-5)


def test_a_channel_that_the_teacher_leaves_constant_is_left_out() -> None:
    teacher, student = random_map(1, 2, 3, 5, 6), random_map(2, 2, 3, 5, 6)
    dead = torch.cat([teacher, torch.zeros(2, 1, 5, 6)], dim=1)
    more = torch.cat([student, random_map(3, 2, 1, 5, 6)], dim=1)
    with_it, without = (
        terms(pkd, outputs(t), outputs(s), labelled(2, 5, 6))["features"] for t, s in ((dead, more), (teacher, student))
    )
    assert with_it == pytest.approx(without, rel=1e-6)


def test_other_channels_and_strides_need_a_1x1_adapter_and_the_coarser_grid() -> None:
    student = random_map(2, 1, 3, 2, 3)
    made = method(pkd, outputs(torch.zeros(1, 4, 8, 12)), outputs(student))
    assert [tuple(p.shape) for p in made.parameters()] == [(4, 3, 1, 1), (4,)]
    adapted = made.adapters["decoder"](student).detach()
    teacher = adapted.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert made(outputs(teacher), outputs(student), labelled(1, 8, 12))["features"].item() == pytest.approx(0, abs=1e-5)


def detector(maps: dict[int, torch.Tensor]) -> Outputs:
    return Outputs({}, {}, maps[min(maps)], maps)


def of_detectors(teacher: Outputs, student: Outputs, options: pkd.Options = pkd.Options()) -> float:  # noqa: B008  frozen
    pyramids = (Pyramid({}, 4, 1, tuple(out.levels), task="detection") for out in (teacher, student))
    return pkd.Method(options, *pyramids)(teacher, student, labelled(2, 24, 40))["features"].item()


def test_of_detectors_it_is_the_mean_over_the_levels_that_both_have() -> None:
    teacher = {stride: random_map(stride, 2, 4, 3, 5) for stride in (8, 16, 32)}
    student = {stride: random_map(stride + 1, 2, 4, 3, 5) for stride in (4, 8, 16)}
    everywhere = np.ones(2 * 3 * 5, dtype=bool)
    finer, coarser = (1 - np.mean(correlations(teacher[s], student[s], everywhere)) for s in (8, 16))
    assert of_detectors(detector(teacher), detector(student)) == pytest.approx((finer + coarser) / 2, rel=1e-5)
    finest = 1 - np.mean(correlations(teacher[8], student[4], everywhere))
    alone = of_detectors(detector(teacher), detector(student), pkd.Options(at="decoder"))
    assert alone == pytest.approx(finest, rel=1e-5)


def test_detectors_without_a_common_level_are_refused() -> None:
    teacher, student = ({stride: random_map(1, 2, 4, 3, 5)} for stride in (8, 16))
    with pytest.raises(RecipeError, match=r"share a level, got levels of strides \[8\] of the teacher and \[16\]"):
        of_detectors(detector(teacher), detector(student))


def test_segmentation_networks_have_no_levels() -> None:
    with pytest.raises(RecipeError, match=r"pkd\.at: expected decoder or backbone for task 'semantic'"):
        method(pkd, outputs(torch.zeros(1, 4, 8, 12)), outputs(torch.zeros(1, 4, 8, 12)), pkd.Options(at="levels"))

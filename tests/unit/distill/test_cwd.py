"""Channel-wise distillation."""

from __future__ import annotations

from math import log

import pytest
import torch

from edgekd.distill.base import Pyramid
from edgekd.distill.methods.cwd import Method, Options
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

KL = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)


def channels(teacher: torch.Tensor, student: torch.Tensor, masks: torch.Tensor, options: Options) -> float:
    pyramid = Pyramid({}, 0, teacher.shape[1])
    batch = Batch(torch.zeros(1), masks)
    outs = (Outputs({"logits": z}, {}, torch.zeros(1)) for z in (teacher, student))
    return Method(options, pyramid, pyramid)(*outs, batch)["channels"].item()


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


LABELLED = torch.zeros(1, 1, 2, dtype=torch.int64)


def test_each_channel_is_a_distribution_over_pixels() -> None:
    # Over two pixels the teacher's channel is (1/4, 3/4), the student's (1/2, 1/2).
    assert channels(row(0, log(3)), row(0, 0), LABELLED, Options(1.0, 1)) == pytest.approx(KL, rel=1e-5)


def test_temperature_squared_over_channels_is_the_normalisation() -> None:
    teacher = torch.cat([row(0, 2 * log(3)), row(5, 5)], dim=1)  # the second channel agrees
    student = torch.cat([row(0, 0), row(1, 1)], dim=1)
    assert channels(teacher, student, LABELLED, Options(2.0, 1)) == pytest.approx(4 * KL / 2, rel=1e-5)


def test_an_ignored_pixel_is_in_neither_distribution() -> None:
    masks = torch.tensor([[[0, 0, 255]]])
    assert channels(row(0, log(3), 50), row(0, 0, -50), masks, Options(1.0, 1)) == pytest.approx(KL, rel=1e-5)


def test_logits_are_averaged_over_the_labelled_pixels_of_a_cell() -> None:
    # Two cells of 2 x 2 pixels; one pixel of the first is void and would change its mean.
    teacher = torch.zeros(1, 1, 2, 4)
    teacher[0, 0, :, 2:] = torch.tensor([[0.0, 2 * log(3)], [2 * log(3), 0.0]])  # mean ln 3
    teacher[0, 0, 0, 0] = 100.0
    masks = torch.zeros(1, 2, 4, dtype=torch.int64)
    masks[0, 0, 0] = 255
    assert channels(teacher, torch.zeros(1, 1, 2, 4), masks, Options(1.0, 2)) == pytest.approx(KL, rel=1e-5)


def test_a_constant_added_to_a_channel_changes_nothing() -> None:
    assert channels(row(0, log(3)), row(40, 40), LABELLED, Options(1.0, 1)) == pytest.approx(KL, rel=1e-4)


def test_features_of_detectors_go_through_an_adapter_onto_one_grid() -> None:
    sides = [Pyramid({}, channels, 1, task="detection") for channels in (2, 1)]
    method = Method(Options(temperature=1.0), *sides)
    with torch.no_grad():
        method.adapter.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        method.adapter.bias.zero_()
    teacher = torch.cat([row(0, log(3)), row(5, 5)], dim=1)
    student = row(1, -1, -1, 1)  # means over two cells: 0, 0
    outs = (Outputs({}, {}, x) for x in (teacher, student))
    found = method(*outs, Batch(torch.zeros(1), torch.zeros(1, 1, 4, dtype=torch.int64)))
    assert found["channels"].item() == pytest.approx(KL / 2, rel=1e-5)  # the second channel agrees


def test_a_constant_changes_nothing_however_low_the_temperature() -> None:
    masks = torch.tensor([[[0, 0, 255]]])
    found = [channels(row(0.0, 1e-3, 9) - 30 * low, row(0, 0, 9), masks, Options(1e-3, 1)) for low in (0, 1)]
    assert found[0] > 1e-8
    assert found[1] == pytest.approx(found[0], rel=2e-2)


def test_features_have_the_papers_temperature_and_no_stride() -> None:
    sides = [Pyramid({}, 1, 1, task=task) for task in ("semantic", "detection")]
    assert [Method(Options(), side, side).temperature for side in sides] == [4.0, 1.0]
    with pytest.raises(RecipeError, match=r"cwd\.stride: features are compared cell by cell, got 8"):
        Method(Options(stride=8), sides[1], sides[1])


def test_a_cell_larger_than_the_crop_is_refused() -> None:
    with pytest.raises(RecipeError, match="stride: expected at most 1, the crop's smaller side, got 2"):
        channels(row(0, 1), row(0, 1), LABELLED, Options(1.0, 2))


def test_logits_of_detectors_are_refused() -> None:
    side = Pyramid({}, 1, 1, task="detection")
    with pytest.raises(RecipeError, match="cwd.at: expected decoder or backbone for a detector"):
        Method(Options(at="logits"), side, side)

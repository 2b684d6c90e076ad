"""Focal and global distillation."""

from __future__ import annotations

from math import exp

import pytest
import torch
from torch import Tensor

from edgekd.data.augment import Objects
from edgekd.distill.base import Pyramid
from edgekd.distill.methods.fgd import GlobalContext, Method, Options, attention, regions_of
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch


def batch(*boxes: list[float], void: slice | None = None) -> Batch:
    """Return one image of 4 x 16 pixels, four cells of stride 4, with these boxes."""
    masks = torch.zeros(1, 4, 16, dtype=torch.int64)
    if void is not None:
        masks[:, :, void] = 255
    objects = Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64)
    )
    return Batch(torch.zeros(1, 3, 4, 16), masks, [objects])


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def cells(*valid: bool) -> Tensor:
    return torch.tensor(valid).view(1, 1, 1, -1)


def level(x: Tensor) -> Outputs:
    """Return the outputs of a detector with one level, of stride 4."""
    return Outputs({}, {}, x, {4: x})


def terms(teacher: Outputs, student: Outputs, labels: Batch, options: Options = Options()) -> dict[str, float]:  # noqa: B008  frozen
    pyramids = (Pyramid({}, out.decoder.shape[1], 1, tuple(out.levels), task="detection") for out in (teacher, student))
    found = Method(options, *pyramids)(teacher, student, labels)
    return {name: value.item() for name, value in found.items()}


EVERYWHERE = cells(True, True, True, True)


def test_the_terms_of_a_row_of_four_cells_by_hand() -> None:
    teacher, student = (level(x) for x in (row(2, 2, 2, 2), row(2, 0, 2, 1)))
    found = terms(teacher, student, batch([0, 0, 8, 4]))
    # Squared errors over the teacher's mean square of 4: 0, 1 | 0, 1/4. Even attention of the teacher; two cells each.
    assert found["foreground"] == pytest.approx((0 + 1) / 2)
    assert found["background"] == pytest.approx(0.5 * (0 + 0.25) / 2)
    shares = [exp(4), exp(0), exp(4), exp(2)]  # |F| / T of the student, T = 1/2
    of_student = [4 * share / sum(shares) for share in shares]
    assert found["attention"] == pytest.approx(0.5 * sum(abs(1 - a) for a in of_student) / 4, rel=1e-5)
    assert found["relation"] == pytest.approx((4 + 1) / 4 / 4)  # R(F) = F at first


def test_the_teachers_attention_weighs_the_errors() -> None:
    teacher, student = (level(x) for x in (row(1, 3, 1, 1), row(0, 2, 0, 0)))
    options = Options(temperature=2.0)
    of_cells = [exp(0.5), exp(1.5), exp(0.5), exp(0.5)]
    weights = [4 * w / sum(of_cells) for w in of_cells]
    found = terms(teacher, student, batch([4, 0, 8, 4]), options)  # the error is 1 in each cell; mean square is 3
    assert found["foreground"] == pytest.approx(weights[1] / 3, rel=1e-5)
    assert found["background"] == pytest.approx(0.5 * weights[0] / 3, rel=1e-5)  # three alike, each a third


def test_attention_of_cells_and_channels_by_hand() -> None:
    x = torch.tensor([[[[1.0, -3.0]], [[3.0, -5.0]]]])  # two channels, two cells
    found = attention(x, cells(True, True), temperature=2.0)
    ratio = exp((4 - 2) / 2)  # means of sizes over channels: 2 and 4; over cells: 2 and 4
    wanted = [2 / (1 + ratio), 2 * ratio / (1 + ratio)]
    assert found.cells.flatten().tolist() == pytest.approx(wanted, rel=1e-5)
    assert found.channels.flatten().tolist() == pytest.approx(wanted, rel=1e-5)


def test_of_overlapping_objects_the_smaller_gives_the_weight() -> None:
    found = regions_of(batch([0, 0, 12, 4], [4, 0, 8, 4]), EVERYWHERE)
    assert found.foreground.flatten().tolist() == pytest.approx([1 / 3, 1, 1 / 3, 0])
    assert found.background.flatten().tolist() == [0, 0, 0, 1]
    assert found.objects.tolist() == [2]


def test_an_object_is_the_cells_that_its_box_touches() -> None:
    found = regions_of(batch([3.5, 1, 4.5, 2]), EVERYWHERE)
    assert found.foreground.flatten().tolist() == [0.5, 0.5, 0, 0]


def test_padding_is_neither_object_nor_background() -> None:
    labels, valid = batch([0, 0, 8, 4], void=slice(4, 12)), cells(True, False, False, True)
    found = regions_of(labels, valid)
    assert found.foreground.flatten().tolist() == [1, 0, 0, 0]
    assert found.background.flatten().tolist() == [0, 0, 0, 1]
    teacher, student = (level(x) for x in (row(2, 2, 2, 2), row(2, 9, 9, 2)))
    assert all(value == pytest.approx(0, abs=1e-6) for value in terms(teacher, student, labels).values())


def test_an_image_without_objects_is_background() -> None:
    teacher, student = (level(x) for x in (row(2, 2, 2, 2), row(0, 2, 2, 2)))
    found = terms(teacher, student, batch())
    assert found["foreground"] == 0
    assert found["background"] == pytest.approx(0.5 * 1 / 4)


def test_levels_that_both_have_take_part_and_count_alike() -> None:
    same, other = row(2, 2, 2, 2), row(2, 0, 2, 2)
    coarse, zeros = row(2, 2), row(0, 0)
    teacher = Outputs({}, {}, same, {4: same, 8: coarse, 16: row(1)})
    labels = batch([0, 0, 16, 4])
    fine = terms(level(same), level(other), labels)
    coarser = terms(level(coarse), level(zeros), labels)
    student = Outputs({}, {}, row(7), {2: row(7), 4: other, 8: zeros, 32: row(7)})
    both = terms(teacher, student, labels)
    for name, value in both.items():
        assert value == pytest.approx((fine[name] + coarser[name]) / 2), name


def test_the_context_block_adds_the_transformed_mean() -> None:
    block = GlobalContext(4)
    with torch.no_grad():
        for convolution in (block.key, block.reduce):
            convolution.weight.zero_()
            convolution.bias.zero_()
        block.reduce.weight[0, 0] = block.reduce.weight[1, 1] = 1  # the means of channels 0 and 1
        block.expand.weight[3, 0] = 5
    x = torch.zeros(1, 4, 1, 2)
    x[0, 0] = torch.tensor([2.0, 6.0])  # mean 4 of channel 0, 0 of channel 1: normalised +1 and -1
    out = block(x, cells(True, True))
    assert out[0, 3].flatten().tolist() == pytest.approx([5, 5], rel=1e-3)
    assert torch.equal(out[0, :3], x[0, :3])
    assert block(x, cells(True, False))[0, 3, 0, 0].item() == pytest.approx(5, rel=1e-3)

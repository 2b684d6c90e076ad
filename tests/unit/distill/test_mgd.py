"""Masked generative distillation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.distill.methods import mgd
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, method, outputs, random_map


def with_identity(made: nn.Module) -> nn.Module:
    """Let the generation block pass non-negative maps through."""
    for conv in (made.generation[0], made.generation[2]):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    return made


def generator_input(made: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    made.generation.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    return seen


def test_masked_cells_cost_their_own_share_of_the_energy() -> None:
    """Where the generator passes its input through, an equal student misses exactly what is masked."""
    same = outputs(random_map(1, 2, 3, 8, 8).abs())
    made = with_identity(method(mgd, same, same))
    seen = generator_input(made)
    torch.manual_seed(5)
    loss = made(same, same, labelled(2, 32, 32))["features"].item()
    masked = seen[0].abs().sum(dim=1) == 0  # (B, h, w)
    energy = same.decoder.square().sum(dim=1)
    assert loss == pytest.approx((energy[masked].sum() / energy.sum()).item(), rel=1e-5)


def test_nothing_masked_and_an_equal_student_is_zero() -> None:
    same = outputs(random_map(1, 2, 3, 4, 4).abs())
    made = with_identity(method(mgd, same, same, mgd.Options(masked=0.0)))
    assert made(same, same, labelled(2, 4, 4))["features"].item() == 0.0


def test_a_generator_that_answers_zero_has_a_loss_of_one_for_every_teacher() -> None:
    for scale in (0.01, 100.0):
        teacher, student = outputs(scale * random_map(1, 2, 3, 4, 4)), outputs(random_map(2, 2, 5, 4, 4))
        made = method(mgd, teacher, student, mgd.Options(features=2.0))
        nn.init.zeros_(made.generation[2].weight)
        nn.init.zeros_(made.generation[2].bias)
        assert made(teacher, student, labelled(2, 4, 4))["features"].item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_share_of_masked_cells_is_the_option(share: float) -> None:
    same = outputs(torch.ones(4, 1, 32, 32))
    made = method(mgd, same, same, mgd.Options(masked=share))
    seen = generator_input(made)
    made(same, same, labelled(4, 32, 32))
    # 4096 draws: the standard deviation of the share is 0.007.
    assert (seen[0] == 0).float().mean().item() == pytest.approx(share, abs=0.03)


def test_whole_cells_are_masked_anew_for_every_image_and_call() -> None:
    same = outputs(torch.ones(2, 3, 8, 8))
    made = method(mgd, same, same)
    seen = generator_input(made)
    for _ in range(2):
        made(same, same, labelled(2, 8, 8))
    assert torch.equal(seen[0][:, 0], seen[0][:, 2])
    assert not torch.equal(seen[0][0], seen[0][1])
    assert not torch.equal(seen[0], seen[1])


def test_the_generator_never_sees_an_unlabelled_cell() -> None:
    same = outputs(torch.ones(1, 1, 2, 2))
    made = method(mgd, same, same, mgd.Options(masked=0.0))
    seen = generator_input(made)
    made(same, same, batch([[[0, 255], [0, 0]]]))
    assert seen[0].flatten().tolist() == [1.0, 0.0, 1.0, 1.0]


def test_the_adapter_is_a_1x1_convolution_only_where_channels_differ() -> None:
    wide, narrow = outputs(torch.zeros(1, 6, 2, 2)), outputs(torch.zeros(1, 4, 2, 2))
    assert [tuple(p.shape) for p in method(mgd, wide, narrow).adapter.parameters()] == [(6, 4, 1, 1), (6,)]
    assert not list(method(mgd, wide, wide).adapter.parameters())


def test_a_mask_over_everything_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"mgd\.masked: expected a share from 0 to below 1, got 1"):
        mgd.Options(masked=1.0)

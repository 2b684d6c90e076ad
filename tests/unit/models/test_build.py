"""Building networks by name, checking input sizes, counting cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError, UserError
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.build import build_model, check_input_size, count
from edgekd.models.families import edgeseg


class OneConvolution(DenseModel):
    """3 -> 5 channels, 3x3, stride 1, with bias."""

    def __init__(self) -> None:
        super().__init__((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.channels, self.decoder_channels, self.size_divisor = {1: 5}, 5, 32
        self.convolution = nn.Conv2d(3, 5, kernel_size=3, padding=1)

    def forward_normalized(self, images: Tensor) -> Outputs:
        logits = self.convolution(images)
        return Outputs({"logits": logits}, {1: logits}, logits)


def test_count_gives_parameters_and_multiply_accumulates() -> None:
    params, macs = count(OneConvolution(), (4, 6))
    assert params == 5 * 3 * 9 + 5
    assert macs == 4 * 6 * 5 * 3 * 9


def test_counting_does_not_touch_batch_norm_statistics() -> None:
    model = build_model("edgeseg", "n", "semantic", 3, edgeseg.Options()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, (32, 32))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_size_that_is_divisible_passes() -> None:
    check_input_size(OneConvolution(), (256, 320))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((250, 320), "input height 250 is not divisible by stride 32; use 256"),
        ((256, 330), "input width 330 is not divisible by stride 32; use 320"),
        ((7, 320), "input height 7 is not divisible by stride 32; use 32"),
        ((0, 320), "input height 0 is not divisible by stride 32; use 32"),
    ],
)
def test_size_that_is_not_divisible_names_the_nearest_that_is(size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_input_size(OneConvolution(), size)
    assert str(caught.value) == message


def test_unknown_variant_is_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="family 'edgeseg' has no variant 'xss'; did you mean 'xs'"):
        build_model("edgeseg", "xss", "semantic", 3, edgeseg.Options())


def test_unknown_family_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'edgeseg'"):
        build_model("edgesec", "n", "semantic", 3, edgeseg.Options())

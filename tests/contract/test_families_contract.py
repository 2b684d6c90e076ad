"""What every model family promises, over all families and variants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.core import plugins
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model, count

CLASSES = 5
HEIGHT, WIDTH = 64, 96  # not square, and divisible by every stride


class OneConvolution(nn.Module):
    """A user's network for the family `python`: logits at a quarter of the size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, kernel_size=3, stride=4, padding=1)
        self.head = nn.Conv2d(8, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def cases() -> list[tuple[str, str]]:
    found = []
    for family in plugins.names("families"):
        variants = plugins.load("families", family).VARIANTS
        found += [
            (family, variant) for variant in (variants if variants is not None else [f"{__name__}:OneConvolution"])
        ]
    return found


@pytest.fixture(scope="module", params=cases(), ids=lambda case: f"{case[0]}-{case[1]}".rpartition(":")[2])
def model(request: pytest.FixtureRequest) -> DenseModel:
    family, variant = request.param
    torch.manual_seed(0)
    return build_model(family, variant, "semantic", CLASSES, plugins.load("families", family).Options())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def test_declared_channels_and_strides_are_the_real_ones(model: DenseModel, images: Tensor) -> None:
    with torch.no_grad():
        outputs = model.eval()(images)
    assert outputs.logits.shape == (2, CLASSES, HEIGHT, WIDTH)
    assert list(outputs.features) == list(model.channels) == sorted(model.channels)
    for stride, feature in outputs.features.items():
        assert feature.shape == (2, model.channels[stride], HEIGHT // stride, WIDTH // stride)
    assert outputs.decoder.shape[:2] == (2, model.decoder_channels)


def test_the_smallest_declared_input_size_works(model: DenseModel) -> None:
    size = model.size_divisor
    with torch.no_grad():
        outputs = model.eval()(torch.rand(1, 3, size, 2 * size))
    assert outputs.logits.shape == (1, CLASSES, size, 2 * size)


def test_gradient_of_the_logits_reaches_every_parameter(model: DenseModel, images: Tensor) -> None:
    model.train().zero_grad()
    model(images).logits.square().mean().backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unreached == []


def test_eval_forward_is_deterministic(model: DenseModel, images: Tensor) -> None:
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images).logits)


def test_images_are_normalised_with_the_declared_mean_and_std(model: DenseModel, images: Tensor) -> None:
    model.eval()
    mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, model.forward_normalized(by_hand).logits, rtol=1e-4, atol=1e-4)


def test_counting_leaves_the_mode_alone(model: DenseModel) -> None:
    model.train()
    params, macs = count(model, (HEIGHT, WIDTH))
    assert model.training
    assert params == sum(p.numel() for p in model.parameters())
    assert macs > 0

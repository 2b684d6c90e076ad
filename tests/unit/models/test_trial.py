"""The trial of a user's network before a training: what is refused, and what is left as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.core.recipe import Network
from edgekd.errors import CheckpointError, RecipeError
from edgekd.models import trial
from edgekd.models.trial import try_network


class Net(nn.Module):
    """One convolution; what a test changes goes into `before` and `after`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.after(self.conv(self.before(x)))

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor) -> Any:
        return x


class DropsAlways(Net):
    def after(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


class DropsInTraining(Net):
    def after(self, x: Tensor) -> Tensor:
        return F.dropout2d(F.batch_norm(x, None, None, training=True), 0.5, training=self.training)


class RandomBuffer(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("gain", torch.rand(1), persistent=False)

    def after(self, x: Tensor) -> Tensor:
        return x * self.gain


class FixedBuffer(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("gain", torch.full((1,), 2.0), persistent=False)

    def after(self, x: Tensor) -> Tensor:
        return x * self.gain


class PlainList(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.blocks = [nn.Conv2d(num_classes, num_classes, 1)]

    def after(self, x: Tensor) -> Tensor:
        return self.blocks[0](x)


class WritesOverWhatTheGradientNeeds(Net):
    def after(self, x: Tensor) -> Tensor:
        y = x.exp()
        y += 1
        return y


class WritesIntoItsInput(Net):
    def before(self, x: Tensor) -> Tensor:
        x -= 0.5
        return x.relu_()


class Frozen(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.requires_grad_(False)


class Detached(Net):
    def after(self, x: Tensor) -> Tensor:
        return x.detach()


class PartlyUsed(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.spare = nn.Linear(2, 2)


class AuxiliaryInTraining(Net):
    def after(self, x: Tensor) -> Any:
        return {"out": x, "aux": x[..., ::2, ::2], "edges": x[:, :1]} if self.training else x


class ListInTraining(Net):
    def after(self, x: Tensor) -> Any:
        return [x, x] if self.training else x


class FailsInTraining(Net):
    def after(self, x: Tensor) -> Tensor:
        return x if not self.training else x.view(-1, 7)


class Tied(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.again = nn.Conv2d(3, num_classes, 3, padding=1)
        self.again.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.again(x)


class DependsOnTheImage(Net):
    def after(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else 2 * x


class Lazy(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(num_classes, 1))


_built = 0


def another_shape_each_time(num_classes: int) -> nn.Module:
    global _built
    _built += 1
    return nn.Sequential(nn.Conv2d(3, _built, 1), nn.Conv2d(_built, num_classes, 1))


def tried(net: Callable[[int], nn.Module], trains: bool = True, **options: Any) -> None:
    train = {"steps": 3} if trains else None
    network = Network(family="python", variant=f"{__name__}:{net.__name__}", options=options, train=train)
    try_network(network, "semantic", 3, "student", (32, 64))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (DropsAlways, r"student: the network gives different outputs for the same image in eval mode; .*torch\.rand"),
        (RandomBuffer, r"two networks with the same weights .*: the values of buffer gain .*persistent=False"),
        (PlainList, r"two networks with the same weights .* no nn\.ModuleList"),
        (WritesOverWhatTheGradientNeeds, r"student: fails in the backward pass: RuntimeError: .*inplace operation"),
        (Frozen, r"student\.train: nothing in the network can be trained"),
        (Detached, r"student\.train: nothing in the network can be trained"),
        (ListInTraining, r"python .*: returns a list with 0: \(2, 3, 32, 64\), 1: .*set options\.output"),
        (
            FailsInTraining,
            r"student: fails in training mode on images \(2, 3, 32, 64\): .*py:\d+, `return x .*view\(-1, 7\)`: RuntimeError",
        ),
    ],
)
def test_what_a_training_would_end_in_is_one_line_before_it(net: type[nn.Module], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        tried(net)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "net", [Net, DropsInTraining, FixedBuffer, WritesIntoItsInput, AuxiliaryInTraining, Tied, DependsOnTheImage, Lazy]
)
def test_networks_that_can_be_trained_pass_and_the_generator_is_where_it_was(net: type[nn.Module]) -> None:
    state = torch.random.get_rng_state()
    tried(net)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_that_is_not_trained_needs_no_gradient() -> None:
    tried(Frozen, trains=False)


def test_two_builds_have_to_have_the_same_weights_by_name_and_shape() -> None:
    with pytest.raises(CheckpointError, match="student: a second network of student .* have another shape"):
        tried(another_shape_each_time)


def test_parameters_without_a_gradient_are_named_with_what_several_devices_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried(PartlyUsed)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("student: 2 of 4 parameters get no gradient (first: spare.weight)")
    assert "trainer.strategy=ddp_find_unused_parameters_true" in said


def test_auxiliary_logits_are_said_and_what_is_no_map_of_the_classes_is_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tried(AuxiliaryInTraining, auxiliary_weight=0.5)
    assert "student: trains auxiliary logits aux with weight 0.5" in caplog.messages
    caplog.clear()
    tried(AuxiliaryInTraining, auxiliary_weight=0)
    assert not caplog.messages


def test_edgekds_own_families_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "untrained_network", None)
    network = Network(family="edgeseg", variant="n", train={"steps": 1})
    try_network(network, "semantic", 3, "student", (64, 64))

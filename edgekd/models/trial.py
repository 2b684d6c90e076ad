"""Trial of a third-party network before a long training: it trains, and saved weights reproduce its outputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

from edgekd.core import plugins
from edgekd.core.recipe import Network
from edgekd.core.user_code import blamed
from edgekd.errors import RecipeError
from edgekd.models.artifact import untrained_network
from edgekd.models.base import DenseModel, Outputs, ReadyDetector
from edgekd.models.outputs import noise, run_on_noise
from edgekd.models.weights import load_into

log = logging.getLogger(__name__)
_USER_FAMILY = "python"


def try_network(network: Network, task: str, num_classes: int, section: str, size: tuple[int, int]) -> None:
    """Try the network of a recipe section on noise of `size` (height, width); edgekd's own families are not tried.

    Builds the network twice, with the same weights. Both must compute the same outputs, twice, and one
    must pass a forward and a backward pass in training mode.

    Raises:
        RecipeError: the network fails, its outputs are not a function of image and weights, or nothing in it can be trained.
        CheckpointError: the saved weights do not fit a second network built from the same arguments.
    """
    if network.family != _USER_FAMILY and not plugins.foreign_module("families", network.family):
        return
    with torch.random.fork_rng():
        first, second = (untrained_network(network, task, num_classes, section) for _ in range(2))
        if isinstance(first, ReadyDetector):
            return
        _check_repeats(first, second, section, size)
        if network.train is not None:
            _check_trains(first, section, size)


def _check_repeats(first: DenseModel, second: DenseModel, section: str, size: tuple[int, int]) -> None:
    """Check that the outputs depend on the image and the saved weights only."""
    once, again = (run_on_noise(first, size, section) for _ in range(2))
    if not _are_alike(once, again):
        raise RecipeError(
            f"{section}: the network gives different outputs for the same image in eval mode; its forward pass draws at random "
            "(dropout with training=True, torch.rand), or changes the network"
        )
    state = first.weights_module().state_dict()
    load_into(second, {key: value.clone() for key, value in state.items()}, f"{section}: a second network of {section}")
    if not _are_alike(once, run_on_noise(second, size, section)):
        raise RecipeError(
            f"{section}: two networks with the same weights give different outputs: {_not_saved(first, second)}; register "
            "each module and each random tensor as a submodule, a parameter or a persistent buffer"
        )


def _not_saved(first: DenseModel, second: DenseModel) -> str:
    """Return the known differences between two networks with the same state dict."""
    others = dict(second.named_buffers())
    names = [name for name, value in first.named_buffers() if not torch.equal(value, others[name])]
    if names:
        return f"the values of buffer {names[0].removeprefix('net.')} are in no weight file (persistent=False)"
    return "a part of it is in no weight file, such as modules in a list that is no nn.ModuleList"


def _check_trains(model: DenseModel, section: str, size: tuple[int, int]) -> None:
    """Check one forward and backward pass in training mode on two images."""
    images = noise(2, size)  # two, because norms in training need them
    with blamed(f"{section}: fails in training mode on images {tuple(images.shape)}"):
        outputs = model.train().forward_normalized(images)
    maps = {**outputs.heads, **outputs.auxiliary}
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not trained or not any(value.requires_grad for value in maps.values()):
        raise RecipeError(
            f"{section}.train: nothing in the network can be trained: its outputs depend on no parameter that requires a "
            "gradient; leave `train` out, or build it with parameters that do"
        )
    with blamed(f"{section}: fails in the backward pass"):
        gradients = torch.autograd.grad(
            _sum(maps.values()), list(trained.values()), allow_unused=True, retain_graph=True
        )
        features = [x for x in (*outputs.features.values(), outputs.decoder) if x.requires_grad]
        if features:
            torch.autograd.grad(_sum(features), list(trained.values()), allow_unused=True)
    if outputs.auxiliary:
        log.info(
            "%s: trains auxiliary logits %s with weight %g",
            section,
            ", ".join(outputs.auxiliary),
            outputs.auxiliary_weight,
        )
    unused = [name.removeprefix("net.") for name, value in zip(trained, gradients, strict=True) if value is None]
    if unused:
        log.warning(
            "%s: %d of %d parameters get no gradient (first: %s); for several devices set "
            "trainer.strategy=ddp_find_unused_parameters_true", section, len(unused), len(trained), unused[0],
        )  # fmt: skip


def _sum(maps: Iterable[Tensor]) -> Tensor:
    return torch.stack([value.float().mean() for value in maps]).sum()


def _are_alike(one: Outputs, other: Outputs) -> bool:
    pairs = [(value, other.heads[name]) for name, value in one.heads.items()]
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max())) for a, b in pairs
    )

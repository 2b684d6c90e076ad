"""Outputs of a user's network: finds the logits, taps submodules, and runs the network once on noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.core.user_code import blamed
from edgekd.errors import RecipeError, did_you_mean
from edgekd.models.base import DenseModel, Outputs

_LOGITS = ("out", "logits")  # names of the logits: torchvision's, and those of transformers
_LARGE = 100.0  # amplitude of the second noise image


class Tap:
    """A forward hook that holds the output of one submodule until it is taken.

    An object with an attribute, not a dict: a deep copy of the network (the averaged one) has its own, and torch.export,
    which puts copies of dicts and lists back after tracing, leaves it as it is.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.output: Any = None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.output = output

    def take(self) -> Any:
        """Return the output and release it; RecipeError if the submodule was not called."""
        output, self.output = self.output, None  # or the graph would live until the next step
        if output is None:
            raise RecipeError(
                f"{self.name}: tap {self.module!r} is not called in the forward pass; tap another submodule"
            )
        return output


def tapped(modules: Mapping[str, nn.Module], module: str, name: str) -> Tap:
    """Return a tap on a submodule; RecipeError if no submodule has this name."""
    if module not in modules:
        raise RecipeError(f"{name}: the network has no submodule {module!r}{did_you_mean(module, modules)}")
    tap = Tap(module, name)
    modules[module].register_forward_hook(tap)
    return tap


def logits_in(returned: Any, chosen: str | int | None, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Find the logits in a network's return value; return them and the other tensors by name or index.

    Args:
        returned: a tensor; a mapping, a named tuple, a dataclass, a list or a tuple of them; an object with `logits`.
        chosen: name or index of the logits; None takes a single tensor, `out` or `logits`.
        name: the network in errors.

    Raises:
        RecipeError: no tensor can be identified as the logits.
    """
    tensors = dict(_tensors(returned))
    known = [key for key in _LOGITS if key in tensors]
    candidates = known or list(tensors)
    key = candidates[0] if known or len(candidates) == 1 else None
    if chosen is not None and not isinstance(returned, Tensor):
        key = str(chosen)
    if key not in tensors:
        found = ", ".join(f"{at}: {tuple(value.shape)}" for at, value in tensors.items()) or "no tensor"
        ask = "set options.output to the name or index of the logits" if tensors else "return logits (B, K, h, w)"
        raise RecipeError(f"{name}: returns a {type(returned).__name__} with {found}; {ask}")
    logits = tensors.pop(key)
    return logits, tensors


def _tensors(returned: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a network's return value, by name or index; "" for a single tensor."""
    if isinstance(returned, Tensor):
        yield "", returned
        return
    for key, value in _items(returned):
        for inner, tensor in _tensors(value) if isinstance(value, (Tensor, list, tuple)) else ():
            yield f"{key}.{inner}" if inner else str(key), tensor


def _items(returned: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(returned, Mapping):
        return returned.items()
    if hasattr(returned, "_asdict"):
        fields: dict[str, Any] = returned._asdict()
        return fields.items()
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return [(field.name, getattr(returned, field.name)) for field in dataclasses.fields(returned)]
    if isinstance(returned, (list, tuple)):
        return enumerate(returned)
    return [(name, getattr(returned, name)) for name in _LOGITS if hasattr(returned, name)]


def check_map(logits: Tensor, classes: int, name: str) -> None:
    """Check that a tensor is (B, classes, h, w) of floats; RecipeError."""
    shape = tuple(logits.shape)
    if logits.ndim == 4 and shape[1] == classes and logits.is_floating_point():
        return
    hint = ""
    if logits.ndim == 3 or not logits.is_floating_point():
        hint = "; return the logits, not their argmax"
    elif logits.ndim == 4 and shape[3] == classes:
        hint = "; its channels are last: x.permute(0, 3, 1, 2)"
    elif logits.ndim == 4 and (shape[1], classes) == (1, 2):
        hint = "; of one channel x make two, with the same probabilities: torch.cat([torch.zeros_like(x), x], 1)"
    kind = str(logits.dtype).removeprefix("torch.")
    raise RecipeError(f"{name}: expected {classes} channels of logits, (B, {classes}, h, w), got {kind} {shape}{hint}")


def tried(model: DenseModel, strides: Iterable[int], name: str) -> tuple[Outputs, tuple[int, int]]:
    """Run a network on noise and return its outputs and the (height, width) of the input.

    The network's buffers and the random generator are left as they were.

    Raises:
        RecipeError: it fails.
    """
    size = model.fixed_size or _test_size(model.size_divisor, strides)
    was_training, buffers = model.training, _copies(model)
    hint = "expected a network of images (B, 3, H, W)"
    if model.fixed_size is None:
        hint += "; one that takes a single size needs options.fixed_size: [height, width]"
    with torch.random.fork_rng():
        outputs = run_on_noise(model, size, name, hint)
    model.train(was_training)
    for key, value in model.named_buffers():
        if key in buffers and buffers[key].shape == value.shape:
            value.copy_(buffers[key])
    return outputs, size


def run_on_noise(model: DenseModel, size: tuple[int, int], name: str, hint: str = "", scale: float = 1.0) -> Outputs:
    """Return the outputs of a network in eval mode for one image of noise; RecipeError when it fails."""
    images = noise(1, size) * scale
    what = f"{name}: fails on an image {tuple(images.shape)}"
    with torch.no_grad(), blamed(what, hint):
        return model.eval().forward_normalized(images.to(model.mean.device))


def noise(batch: int, size: tuple[int, int]) -> Tensor:
    """Return normalised images (batch, 3, height, width) of noise, always the same."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def check_logits(model: DenseModel, logits: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Check the logits of an untrained network for one image of noise; RecipeError."""
    if tuple(logits.shape) != shape:
        raise RecipeError(f"{name}: expected logits {shape} for an image of {shape[2:]}, got {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise RecipeError(f"{name}: its logits for an image of noise are not finite")
    if not _are_probabilities(logits):
        return
    # Logits may lie between 0 and 1 by chance, but not for noise of 100 times the amplitude.
    with torch.random.fork_rng():
        large = run_on_noise(model, (shape[2], shape[3]), name, scale=_LARGE).logits
    if _are_probabilities(large):
        raise RecipeError(
            f"{name}: returns probabilities, expected logits, because the loss applies softmax; leave out the network's "
            "last softmax or sigmoid"
        )


def _are_probabilities(logits: Tensor) -> bool:
    """Return whether all values are in [0, 1] and not all of them are equal."""
    return bool(((logits >= 0) & (logits <= 1)).all() and logits.min() < logits.max())


def _test_size(divisor: int, strides: Iterable[int]) -> tuple[int, int]:
    unit = math.lcm(divisor, *strides)
    side = unit * math.ceil(2 * max(divisor, *strides, 16) / unit)
    return side, side


def _copies(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers, except those without a value before the first forward pass."""
    return {name: value.clone() for name, value in model.named_buffers() if not nn.parameter.is_lazy(value)}

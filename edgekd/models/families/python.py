"""Family `python`, user networks: the variant is `package.module:function`, and the function returns it.

    teacher:
      family: python
      variant: my_networks:big_net          # imported from the environment or the current folder: this runs its code
      options:
        options: {width: 64}                # big_net(num_classes=11, width=64)
        taps: {8: encoder.layer2, 16: encoder.layer3}

The function returns a `DenseModel`, which is used unchanged, or any `nn.Module` that maps normalised images
(B, 3, H, W) to logits (B, K, h, w) or to a mapping with them under `out`. The features of such a module are those in `taps`;
without `decoder_tap` its decoder feature is the logits before they are resized. Auxiliary heads are not trained here: in
training mode the network must also return its logits.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.errors import RecipeError, did_you_mean, one_line
from edgekd.models.base import DenseModel, Outputs

TASKS = ("semantic",)
VARIANTS = None  # any `package.module:function`; `build` checks it
# Exceptions of user code that does not fit.
_FAILURES = (RuntimeError, TypeError, KeyError, IndexError, AttributeError, ValueError, AssertionError)


@dataclass(frozen=True)
class Options:
    """Arguments of the function, and facts of a network that is not a `DenseModel`. A `DenseModel` needs `options` only."""

    options: dict[str, Any] = option({}, "Arguments of the function, beside `num_classes`.")
    taps: dict[int, str] = option(
        {},
        "Submodule whose output (B, C, H/stride, W/stride) is the feature of each stride: `{8: encoder.layer2}`. An "
        "in-place ReLU behind the submodule changes that feature.",
    )
    decoder_tap: str | None = option(
        None,
        "Submodule whose output is the last map before the classifier. `null`: the logits before they are resized.",
    )
    mean: tuple[float, float, float] = option((0.485, 0.456, 0.406), "Mean of the network's input, for RGB in [0, 1].")
    std: tuple[float, float, float] = option(
        (0.229, 0.224, 0.225), "Standard deviation of the network's input, for RGB in [0, 1]."
    )
    size_divisor: int = option(32, "Number that divides the input height and width.")


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Import the function, call it, and return its network.

    Raises:
        RecipeError: no such module or function, it fails, or its return value or a tap does not fit.
    """
    function = _function(variant)
    try:
        net = function(num_classes=num_classes, **options.options)
    except _FAILURES as exc:
        raise RecipeError(f"python {variant}: cannot be called: {type(exc).__name__}: {one_line(exc)}") from exc
    if isinstance(net, DenseModel):
        _check_outputs(net, num_classes, f"python {variant}")
        return net
    if not isinstance(net, nn.Module):
        raise RecipeError(f"python {variant}: expected an nn.Module or a DenseModel, got {type(net).__name__}")
    return WrappedModel(net, num_classes, options, variant)


class WrappedModel(DenseModel):
    """A user's network with taps on its submodules. Its weights have the names of the user's network."""

    def __init__(self, net: nn.Module, num_classes: int, options: Options, name: str) -> None:
        super().__init__(options.mean, options.std)
        self.net, self.name = net, f"python {name}"
        self.size_divisor = options.size_divisor
        self.tapped: dict[str, Tensor] = {}
        self.taps = dict(sorted(options.taps.items()))
        self.decoder_tap = options.decoder_tap
        modules = dict(net.named_modules())
        for tap in {*self.taps.values(), *([self.decoder_tap] if self.decoder_tap else [])}:
            if tap not in modules:
                raise RecipeError(f"python {name}: the network has no submodule {tap!r}{did_you_mean(tap, modules)}")
            modules[tap].register_forward_hook(_StoreOutput(self.tapped, tap))
        self.channels, self.decoder_channels = self._measured(num_classes)

    def weights_module(self) -> nn.Module:
        return self.net

    def forward_normalized(self, images: Tensor) -> Outputs:
        self.tapped.clear()
        returned = self.net(images)
        logits = returned["out"] if isinstance(returned, Mapping) else returned
        if not isinstance(logits, Tensor):
            raise TypeError(f"returned a {type(logits).__name__}")
        features = {stride: self.tapped[tap] for stride, tap in self.taps.items()}
        decoded = self.tapped[self.decoder_tap] if self.decoder_tap else logits
        self.tapped.clear()  # or the graph would live until the next step
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return Outputs({"logits": logits}, features, decoded)

    def check_trains(self) -> None:
        _test_outputs(self, self.taps, self.name, training=True)

    def _measured(self, num_classes: int) -> tuple[dict[int, int], int]:
        """Check the declared taps and return the channels by stride and of the decoder."""
        outputs, size = _test_outputs(self, self.taps, self.name)
        _check_logits(outputs, num_classes, size, self.name)
        for stride, feature in outputs.features.items():
            if not isinstance(feature, Tensor) or feature.ndim != 4 or feature.shape[-1] * stride != size:
                shown = tuple(feature.shape) if isinstance(feature, Tensor) else f"a {type(feature).__name__}"
                raise RecipeError(
                    f"{self.name}: tap {self.taps[stride]!r} is declared with stride {stride}, "
                    f"got output {shown} for input size {size}"
                )
        if not isinstance(outputs.decoder, Tensor) or outputs.decoder.ndim != 4:
            raise RecipeError(f"{self.name}: decoder_tap {self.decoder_tap!r} does not give one map (B, C, h, w)")
        return {stride: feature.shape[1] for stride, feature in outputs.features.items()}, outputs.decoder.shape[1]


def _check_outputs(model: DenseModel, num_classes: int, name: str) -> None:
    """Check that a user's `DenseModel` has the outputs that it declares; RecipeError."""
    outputs, size = _test_outputs(model, model.channels, name)
    _check_logits(outputs, num_classes, size, name)
    actual = {stride: (x.shape[1], size // x.shape[-1]) for stride, x in outputs.features.items()}
    declared = {stride: (channels, stride) for stride, channels in model.channels.items()}
    if actual != declared or outputs.decoder.shape[1] != model.decoder_channels:
        raise RecipeError(
            f"{name}: `channels` and `decoder_channels` say {model.channels} and {model.decoder_channels}, got features "
            f"{ {s: tuple(x.shape) for s, x in outputs.features.items()} } and decoder {tuple(outputs.decoder.shape)} "
            f"for input size {size}"
        )


def _check_logits(outputs: Outputs, num_classes: int, size: int, name: str) -> None:
    shape = tuple(outputs.logits.shape)
    if shape[1] != num_classes:
        raise RecipeError(f"{name}: expected {num_classes} channels of logits, got {shape[1]}")
    if shape[2:] != (size, size):
        raise RecipeError(f"{name}: expected logits of the input's size {(size, size)}, got {shape[2:]}; resize them")


def _test_outputs(model: DenseModel, strides: Iterable[int], name: str, training: bool = False) -> tuple[Outputs, int]:
    """Run a network on zeros and return its outputs and the side of the input; the network's state stays unchanged."""
    unit = math.lcm(model.size_divisor, *strides)
    size = unit * math.ceil(2 * max(model.size_divisor, *strides, 16) / unit)
    was_training, buffers = model.training, {key: value.clone() for key, value in model.named_buffers()}
    shape = (2 if training else 1, 3, size, size)  # norms need two in training
    try:
        with torch.no_grad(), torch.random.fork_rng():
            outputs = model.train(training).forward_normalized(torch.zeros(shape))
    except _FAILURES as exc:
        mode = " in training mode" if training else ""
        raise RecipeError(
            f"{name}: fails on an image {shape}{mode}: {type(exc).__name__}: {one_line(exc)}; "
            "it must return logits (B, K, h, w) or a mapping with them under 'out'"
        ) from exc
    finally:
        model.train(was_training)
        for key, value in model.named_buffers():
            value.copy_(buffers[key])
    return outputs, size


class _StoreOutput:
    """A forward hook that stores the output under a name. It is an object, not a closure: a deep copy of the network
    (the averaged one) must write into its own dict."""

    def __init__(self, store: dict[str, Tensor], tap: str) -> None:
        self.store, self.tap = store, tap

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.store[self.tap] = output


def _function(variant: str) -> Any:
    """Return the function of `package.module:function`. The current folder is searched last."""
    module_name, colon, function_name = variant.partition(":")
    if not colon or not module_name or not function_name:
        raise RecipeError(f"python {variant!r}: expected package.module:function")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        raise RecipeError(
            f"python {variant}: cannot import {module_name!r}: {exc}; install it or run in its folder"
        ) from exc
    function = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(f"python {variant}: {module_name} has no function {function_name!r}")
    return function

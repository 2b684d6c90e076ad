"""Any network of your own: the variant is `package.module:function`, and the function returns it.

    teacher:
      family: python
      variant: my_networks:big_net          # imported from the environment or the current folder: this runs its code
      options:
        options: {width: 64}                # big_net(num_classes=11, width=64)
        taps: {8: encoder.layer2, 16: encoder.layer3}

The function returns a `DenseModel`, which is taken as it is, or any `nn.Module` that maps normalised images
(B, 3, H, W) to logits (B, K, h, w) or to a mapping with them under `out`. Such a network has the features named by
`taps` and no others; without `decoder_tap` its decoder feature is the logits before they are resized.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import RecipeError, did_you_mean
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.weights import one_line

TASKS = ("semantic",)
VARIANTS = None  # any `package.module:function`; `build` checks it


@dataclass(frozen=True)
class Options:
    """Options of this family; all but `options` are for networks that are not a `DenseModel`.

    options: arguments of the function, beside `num_classes`.
    taps: stride -> name of the submodule whose output (B, C, H/stride, W/stride) is the feature of that stride;
        an in-place ReLU behind it changes that feature too.
    decoder_tap: name of the submodule whose output is the decoder's last map before the classifier.
    mean, std: of the network's input, for RGB in [0, 1].
    size_divisor: input height and width must be divisible by it.
    """

    options: dict[str, Any] = field(default_factory=dict)
    taps: dict[int, str] = field(default_factory=dict)
    decoder_tap: str | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisor: int = 32


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Import the function, call it, and return its network.

    Raises:
        RecipeError: no such module or function, it fails, or what it returns or a tap does not fit.
    """
    function = _function(variant)
    try:
        net = function(num_classes=num_classes, **options.options)
    except TypeError as exc:
        raise RecipeError(f"python {variant}: cannot be called: {one_line(exc)}") from exc
    if isinstance(net, DenseModel):
        return net
    if not isinstance(net, nn.Module):
        raise RecipeError(f"python {variant}: expected an nn.Module or a DenseModel, got {type(net).__name__}")
    return WrappedModel(net, num_classes, options, variant)


class WrappedModel(DenseModel):
    """A network of the user's with taps on its submodules. Its weights are named as in the user's network."""

    def __init__(self, net: nn.Module, num_classes: int, options: Options, name: str) -> None:
        super().__init__(options.mean, options.std)
        self.net = net
        self.size_divisor = options.size_divisor
        self.tapped: dict[str, Tensor] = {}
        self.taps = dict(sorted(options.taps.items()))
        self.decoder_tap = options.decoder_tap
        modules = dict(net.named_modules())
        for tap in {*self.taps.values(), *([self.decoder_tap] if self.decoder_tap else [])}:
            if tap not in modules:
                raise RecipeError(f"python {name}: the network has no submodule {tap!r}{did_you_mean(tap, modules)}")
            modules[tap].register_forward_hook(_Keep(self.tapped, tap))
        self.channels, self.decoder_channels = self._measure(num_classes, name)

    def weights_module(self) -> nn.Module:
        return self.net

    def forward_normalized(self, images: Tensor) -> Outputs:
        self.tapped.clear()
        answer = self.net(images)
        logits = answer["out"] if isinstance(answer, Mapping) else answer
        features = {stride: self.tapped[tap] for stride, tap in self.taps.items()}
        decoded = self.tapped[self.decoder_tap] if self.decoder_tap else logits
        self.tapped.clear()  # or the graph would live until the next step
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return Outputs({"logits": logits}, features, decoded)

    def _measure(self, num_classes: int, name: str) -> tuple[dict[int, int], int]:
        """Run zeros through and return the channels by stride and of the decoder, checking what was declared."""
        size = 2 * max(self.size_divisor, *self.taps, 16)
        was_training = self.training
        try:
            with torch.no_grad():
                outputs = self.eval().forward_normalized(torch.zeros(1, 3, size, size))
        except (RuntimeError, TypeError, KeyError, AttributeError, ValueError) as exc:
            raise RecipeError(
                f"python {name}: fails on an image (1, 3, {size}, {size}): {type(exc).__name__}: {one_line(exc)}; "
                "it must return logits (B, K, h, w) or a mapping with them under 'out'"
            ) from exc
        self.train(was_training)
        if outputs.logits.shape[1] != num_classes:
            raise RecipeError(
                f"python {name}: expected {num_classes} channels of logits, got {outputs.logits.shape[1]}"
            )
        for stride, feature in outputs.features.items():
            if feature.ndim != 4 or feature.shape[-1] * stride != size:
                got = f"output {tuple(feature.shape)} for input size {size}"
                raise RecipeError(
                    f"python {name}: tap {self.taps[stride]!r} is declared with stride {stride}, got {got}"
                )
        return {stride: feature.shape[1] for stride, feature in outputs.features.items()}, outputs.decoder.shape[1]


class _Keep:
    """A forward hook that keeps the output under a name. An object, not a closure: a deep copy of the network
    (an averaged one, say) must write into its own dict."""

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

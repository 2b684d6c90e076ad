"""Family `python`, user networks: the variant is `package.module:function`, and the function returns it.

    teacher:
      family: python
      variant: my_networks:big_net          # imported from the environment or the current folder: this runs its code
      options:
        options: {width: 64}                # big_net(num_classes=11, width=64)
        taps: {8: encoder.layer2, 16: encoder.layer3}

The function returns a `DenseModel`, which is used unchanged, or any `nn.Module` that maps normalised images
(B, 3, H, W) to logits (B, K, h, w), alone or among other tensors. edgekd resizes the logits to the input. The features of
such a module are those in `taps`; without `decoder_tap` its decoder feature is the logits before they are resized. Further
maps (B, K, h, w) that it returns in training mode are auxiliary logits: they are trained and not exported.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.core import user_code
from edgekd.core.user_code import blamed
from edgekd.errors import RecipeError
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.outputs import check_logits, check_map, logits_in, tapped, tried

TASKS = ("semantic",)
VARIANTS = None  # any `package.module:function`; `build` checks it
_Side = Annotated[int, Field(gt=0)]


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
    output: str | int | None = option(
        None,
        "Name or index of the logits among what the network returns. `null`: the only tensor, or the one called `out` or "
        "`logits`.",
    )
    auxiliary_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = option(
        0.4,
        "Weight in the task loss of each further map (B, K, h, w) that the network returns in training mode. 0: no loss.",
    )
    mean: tuple[float, float, float] = option(
        (0.485, 0.456, 0.406),
        "Mean of the network's input, for RGB in [0, 1]. `[0, 0, 0]` for a network that normalises by itself.",
    )
    std: tuple[float, float, float] = option(
        (0.229, 0.224, 0.225),
        "Standard deviation of the network's input, for RGB in [0, 1]. `[1, 1, 1]` for a network that normalises by itself.",
    )
    size_divisor: _Side = option(32, "Number that divides the input height and width.")
    fixed_size: tuple[_Side, _Side] | None = option(
        None, "Input size (height, width) of a network that takes no other; `data.size` must equal it. `null`: any."
    )


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Import the function, call it, and return its network.

    Raises:
        RecipeError: no such module or function, it fails, or its return value or a tap does not fit.
    """
    name, function = f"python {variant}", _function(variant)
    arguments = ", ".join(["num_classes", *options.options])
    with blamed(f"{name}: cannot be called with {arguments}"):
        net = function(num_classes=num_classes, **options.options)
    if not isinstance(net, nn.Module):
        raise RecipeError(f"{name}: expected an nn.Module or a DenseModel, got {_kind(net)}")
    net = _plain(net, name)
    if isinstance(net, DenseModel):
        _check_outputs(net, num_classes, name)
        return net
    return WrappedModel(net, num_classes, options, name)


class WrappedModel(DenseModel):
    """A user's network with taps on its submodules. Its weights have the names of the user's network."""

    def __init__(self, net: nn.Module, num_classes: int, options: Options, name: str) -> None:
        super().__init__(options.mean, options.std)
        self.net, self.name, self.num_classes, self.options = net, name, num_classes, options
        self.size_divisor = 1 if options.fixed_size else options.size_divisor
        self.fixed_size = options.fixed_size
        modules = dict(net.named_modules())
        self.taps = {stride: tapped(modules, tap, name) for stride, tap in sorted(options.taps.items())}
        self.decoder_tap = tapped(modules, options.decoder_tap, name) if options.decoder_tap else None
        self.channels, self.decoder_channels = self._measured(name)

    def weights_module(self) -> nn.Module:
        return self.net

    def forward_normalized(self, images: Tensor) -> Outputs:
        # A copy, because a network may write into its input.
        logits, others = logits_in(self.net(images.clone()), self.options.output, self.name)
        check_map(logits, self.num_classes, self.name)
        features = {stride: tap.take() for stride, tap in self.taps.items()}
        decoder = self.decoder_tap.take() if self.decoder_tap else logits
        auxiliary = {}
        if self.training and self.options.auxiliary_weight > 0:
            maps = {key: value for key, value in others.items() if value.shape[1:2] == logits.shape[1:2]}
            auxiliary = {key: _resized(value, images) for key, value in maps.items() if value.ndim == 4}
        logits = _resized(logits if self.training else logits.float(), images)
        return Outputs({"logits": logits}, features, decoder, {}, auxiliary, self.options.auxiliary_weight)

    def _measured(self, name: str) -> tuple[dict[int, int], int]:
        """Check the network and the declared taps, and return the channels by stride and of the decoder."""
        outputs, size = tried(self, self.taps, name)
        check_logits(self, outputs.logits, (1, self.num_classes, *size), name)
        for stride, feature in outputs.features.items():
            if not _is_map(feature) or tuple(side * stride for side in feature.shape[-2:]) != size:
                shown = tuple(feature.shape) if isinstance(feature, Tensor) else f"a {type(feature).__name__}"
                raise RecipeError(
                    f"{name}: tap {self.taps[stride].module!r} is declared with stride {stride}, "
                    f"got output {shown} for input size {size}"
                )
        if not _is_map(outputs.decoder):
            raise RecipeError(f"{name}: decoder_tap {self.options.decoder_tap!r} does not give one map (B, C, h, w)")
        return {stride: feature.shape[1] for stride, feature in outputs.features.items()}, outputs.decoder.shape[1]


def _plain(net: nn.Module, name: str) -> nn.Module:
    """Return the network without wrappers, on the CPU; RecipeError for one that cannot be trained or exported."""
    while isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(net, "_orig_mod"):
        inner = net._orig_mod if hasattr(net, "_orig_mod") else net.module
        assert isinstance(inner, nn.Module)
        net = inner
    for part, module in net.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise RecipeError(
                f"{name}: expected a network of Python code, got a scripted module (torch.jit)"
                f"{f' at {part!r}' if part else ''}, which cannot be exported; return it as it was before "
                "torch.jit.script or torch.jit.trace"
            )
    for key, value in net.named_parameters():
        if value.is_meta:
            raise RecipeError(
                f"{name}: its parameter {key} is on the meta device and has no values; build it on the CPU"
            )
        if value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise RecipeError(
                f"{name}: expected float32 parameters, got {kind} ({key}); return net.float(), and set the training "
                "precision by train.precision"
            )
    return net.cpu()


def _check_outputs(model: DenseModel, num_classes: int, name: str) -> None:
    """Check that a user's `DenseModel` has the outputs that it declares; RecipeError."""
    outputs, size = tried(model, model.channels, name)
    check_map(outputs.logits, num_classes, name)
    check_logits(model, outputs.logits, (1, num_classes, *size), name)
    actual = {stride: (x.shape[1], size[1] // x.shape[-1]) for stride, x in outputs.features.items()}
    declared = {stride: (channels, stride) for stride, channels in model.channels.items()}
    if actual != declared or outputs.decoder.shape[1] != model.decoder_channels:
        raise RecipeError(
            f"{name}: `channels` and `decoder_channels` say {model.channels} and {model.decoder_channels}, got features "
            f"{ {s: tuple(x.shape) for s, x in outputs.features.items()} } and decoder {tuple(outputs.decoder.shape)} "
            f"for input size {size}"
        )


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _kind(value: Any) -> str:
    return f"the class {value.__name__}, not a network of it" if isinstance(value, type) else type(value).__name__


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    size = images.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _function(variant: str) -> Any:
    """Return the function of `package.module:function`. The current folder is searched last."""
    module_name, colon, function_name = variant.partition(":")
    if not colon or not module_name or not function_name:
        raise RecipeError(f"python {variant!r}: expected package.module:function, e.g. my_networks:big_net")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    user_code.remember(module_name)
    with blamed(f"python {variant}: cannot import {module_name!r}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if not f"{module_name}.".startswith(f"{exc.name}."):
                raise
            raise RecipeError(
                f"python {variant}: cannot import {module_name!r}: {exc}; install it or run in its folder"
            ) from exc
    function = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(f"python {variant}: {module_name} has no function {function_name!r}")
    return function

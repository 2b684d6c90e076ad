"""Backbones: feature maps at strides 4, 8, 16, 32, the inputs of decoders and pyramids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from edgekd.errors import CheckpointError, RecipeError, did_you_mean, one_line
from edgekd.models.blocks import ConvNorm, Residual
from edgekd.models.weights import fill, load_state

Triple = tuple[float, float, float]
STRIDES = (4, 8, 16, 32)
# ImageNet's channel statistics. Training from scratch works with any fixed values; toolchains expect these.
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Size:
    """`widths` and `depths` (residual blocks) of the stages at strides 4, 8, 16, 32; channels of the decoder."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    decoder: int


# Multiples of 8 fill vector units.
SIZES = {
    "n": Size((16, 24, 32, 48), (1, 1, 1, 1), 24),
    "xs": Size((24, 32, 48, 64), (1, 1, 1, 1), 32),
    "s": Size((32, 48, 64, 96), (1, 1, 1, 1), 48),
    "m": Size((32, 48, 80, 128), (1, 1, 2, 1), 64),
    "l": Size((48, 80, 144, 224), (1, 2, 2, 2), 80),
}


def edge_stages(size: Size) -> tuple[nn.Sequential, nn.ModuleList]:
    """Return the stem (stride 4) and the residual stages of edgekd's own backbone; `run_stages` runs them."""
    first = size.widths[0]
    stem = nn.Sequential(ConvNorm(3, first // 2, stride=2), ConvNorm(first // 2, first, stride=2))
    stages = nn.ModuleList()
    inputs = first
    for stride, width, depth in zip(STRIDES, size.widths, size.depths, strict=True):
        down = [] if stride == STRIDES[0] else [ConvNorm(inputs, width, stride=2)]
        stages.append(nn.Sequential(*down, *(Residual(width) for _ in range(depth))))
        inputs = width
    return stem, stages


def run_stages(
    stem: nn.Module, stages: nn.ModuleList, images: Tensor, before_relu: bool = False
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return stride -> (B, C, H/stride, W/stride), fine to coarse, twice: for decoders, and for methods to compare.

    Both are the stages' outputs; with `before_relu` the second are what each stage's last ReLU takes.
    """
    x = stem(images)
    maps, shown = {}, {}
    for stride, stage in zip(STRIDES, stages, strict=True):
        if before_relu:
            *blocks, last = cast(Iterable[Any], stage)
            for block in blocks:
                x = block(x)
            shown[stride] = last.before_relu(x)
            x = shown[stride].relu()  # the block's own ReLU works in place
        else:
            x = shown[stride] = stage(x)
        maps[stride] = x
    return maps, shown


class EdgeBackbone(nn.Module):
    """edgekd's own backbone as one module."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.stem, self.stages = edge_stages(size)
        self.channels = dict(zip(STRIDES, size.widths, strict=True))
        self.mean, self.std = IMAGENET

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        return run_stages(self.stem, self.stages, images)[0]


class TimmBackbone(nn.Module):
    """Feature maps at strides 4 to 32 of a timm model, with weights from a file if one is given.

    Raises:
        RecipeError: timm has no such model, or it has no maps at these strides.
        CheckpointError: the weights are damaged, incomplete, for another model, or cannot be downloaded.
    """

    def __init__(self, name: str, weights: str | bool | None) -> None:
        super().__init__()
        import timm  # takes seconds, and edgekd's own backbone does not need it

        if not timm.is_model(name):
            raise RecipeError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
        try:
            self.model = timm.create_model(name, pretrained=weights is True, features_only=True)
        except (OSError, RuntimeError) as exc:
            kind = CheckpointError if weights is True else RecipeError
            raise kind(f"backbone {name!r} cannot be made: {one_line(exc)}") from exc
        info: Any = self.model.feature_info
        self.places = {stride: place for place, stride in enumerate(info.reduction()) if stride in STRIDES}
        if set(self.places) != set(STRIDES):
            raise RecipeError(f"backbone {name!r}: expected maps at strides {STRIDES}, got {info.reduction()}")
        self.channels = {stride: info.channels()[place] for stride, place in self.places.items()}
        self.is_channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"  # e.g. Swin
        config = timm.get_pretrained_cfg(name)
        self.mean, self.std = (triple(config.mean), triple(config.std)) if config else IMAGENET
        if isinstance(weights, str):
            fill_timm(self.model, name, weights)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps = self.model(images)
        if self.is_channels_last:
            maps = [each.permute(0, 3, 1, 2).contiguous() for each in maps]
        return {stride: maps[place] for stride, place in self.places.items()}


def fill_timm(features: nn.Module, name: str, path: str) -> None:
    """Fill a timm feature extractor from the state dict of the whole classifier, whose last layers it does not have.

    Raises:
        CheckpointError: damaged, incomplete, or of another model.
    """
    import timm

    state = load_state(path)
    whole = set(timm.create_model(name, pretrained=False).state_dict())
    renamed = dict(_timm_names(features.state_dict(), state))
    fill(features, {**state, **renamed}, f"encoder_weights {path}", leftover=lambda key: key in whole)


def _timm_names(wanted: dict[str, Tensor], state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights under the names of timm's feature extractor, which flattens `stages.0.` to `stages_0.`."""
    for key in wanted:
        original = re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", key)
        if key not in state and original in state:
            yield key, state[original]


def triple(values: tuple[float, ...]) -> Triple:
    """Return three channel statistics with their type."""
    red, green, blue = values
    return red, green, blue

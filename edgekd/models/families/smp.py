"""FPN, PSPNet, DeepLabV3+ and SegFormer of segmentation-models-pytorch, on any timm encoder. Teachers, mostly.

Weight names are segmentation-models-pytorch's own, so its checkpoints load as they are.

Operators on the chip: `fpn` normalises its decoder with GroupNorm and sums a stack of tensors, and `pspnet` pools
adaptively to 2, 3 and 6 bins, which NPU compilers refuse or miscompile; all four upsample with corners aligned. Use
`edgeseg` for a student that has to run everywhere.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import encoders as SMP_ENCODERS
from torch import Tensor

from edgekd.board.options import option
from edgekd.errors import CheckpointError, RecipeError, one_line
from edgekd.models.backbones import IMAGENET, Triple, fill_timm, triple
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.weights import fill, load_state


@dataclass(frozen=True)
class Options:
    """Encoder, decoder and normalisation."""

    encoder: str = option(
        "tf_efficientnet_lite2",
        "Name of a timm model, or of an encoder that only segmentation-models-pytorch has (`mit_b0`).",
    )
    encoder_weights: str | Literal[True] | None = option(
        None,
        "File with the encoder's state dict, with the names of timm or segmentation-models-pytorch. `true`: download the "
        "pretrained weights. `null`: random weights.",
        is_path=True,
    )
    encoder_options: dict[str, Any] = option({}, "Further arguments of `timm.create_model`, e.g. `drop_path_rate`.")
    decoder_channels: int | None = option(
        None,
        "Width of the decoder. `null`: fpn 128 (its pyramid has twice that), pspnet 512, deeplabv3plus 256, segformer 256.",
    )
    output_stride: Literal[8, 16, 32] | None = option(
        None,
        "Stride of the encoder's last map; below 32 the last stages are dilated instead of strided. `null`: fpn and "
        "segformer 32, deeplabv3plus 16, pspnet 8 (as published; segmentation-models-pytorch cuts the encoder at stride 8).",
    )
    mean: Triple | None = option(
        None,
        "Mean of the network's input, for RGB in [0, 1]. `null`: the encoder's pretraining. `[0, 0, 0]` for a checkpoint "
        "whose pixels were only divided by 255.",
    )
    std: Triple | None = option(
        None,
        "Standard deviation of the network's input, for RGB in [0, 1]. `null`: the encoder's pretraining. `[1, 1, 1]` for a "
        "checkpoint whose pixels were only divided by 255.",
    )


@dataclass(frozen=True)
class Decoder:
    """Defaults of one architecture and the output strides it can work with."""

    channels: int
    output_stride: int
    allowed: tuple[int, ...]


TASKS = ("semantic",)
VARIANTS = {
    "fpn": Decoder(channels=128, output_stride=32, allowed=(32,)),
    "pspnet": Decoder(channels=512, output_stride=8, allowed=(8, 16, 32)),
    "deeplabv3plus": Decoder(channels=256, output_stride=16, allowed=(8, 16)),
    "segformer": Decoder(channels=256, output_stride=32, allowed=(32,)),
}


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Return the network, with encoder weights from `encoder_weights` when given.

    Raises:
        RecipeError: unknown encoder, or one that this architecture cannot use.
        CheckpointError: the encoder's weights are damaged, incomplete, for another encoder, or cannot be downloaded.
    """
    stride = options.output_stride or VARIANTS[variant].output_stride
    if stride not in VARIANTS[variant].allowed:
        raise RecipeError(f"smp {variant}: output_stride {stride} is not one of {VARIANTS[variant].allowed}")
    name = _encoder_name(options.encoder)
    _check_input_size_is_free(name, options)
    # The two kinds of encoder have different arguments for their downloads.
    download = (name.startswith("tu-") or "imagenet") if options.encoder_weights is True else None
    try:
        net = _network(variant, name, download, num_classes, stride, options)
    except (OSError, RuntimeError) as exc:
        if download is None:
            raise RecipeError(f"smp {variant} cannot use encoder {options.encoder!r}: {one_line(exc)}") from exc
        raise CheckpointError(
            f"the weights of encoder {options.encoder!r} cannot be downloaded: {one_line(exc)}; give encoder_weights a file"
        ) from exc
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as exc:
        raise RecipeError(f"smp {variant} cannot use encoder {options.encoder!r}: {one_line(exc)}") from exc
    if isinstance(options.encoder_weights, str):
        _load_encoder(net.encoder, name, options.encoder_weights)
    mean, std = _normalisation(name)
    return SmpModel(net, options.mean or mean, options.std or std)


class SmpModel(DenseModel):
    """A network of segmentation-models-pytorch with its features by stride.

    Where dilation gives several encoder levels one stride, the deepest of them is the feature of that stride.
    """

    def __init__(self, net: Any, mean: Triple, std: Triple) -> None:
        super().__init__(mean, std)
        self.encoder = net.encoder
        self.decoder = net.decoder
        self.segmentation_head = net.segmentation_head
        self.levels = _levels(net.encoder)
        self.channels = {stride: net.encoder.out_channels[level] for stride, level in self.levels.items()}
        self.decoder_channels = net.segmentation_head[0].in_channels
        self.size_divisor = max(self.levels)

    def forward_normalized(self, images: Tensor) -> Outputs:
        maps = self.encoder(images)
        decoded = self.decoder(maps)
        features = {stride: maps[level] for stride, level in self.levels.items()}
        return Outputs({"logits": self.segmentation_head(decoded)}, features, decoded)


def _network(
    variant: str, name: str, download: str | bool | None, num_classes: int, stride: int, options: Options
) -> Any:
    """Call the constructor, whose argument names differ from one architecture to the next."""
    width = options.decoder_channels or VARIANTS[variant].channels
    common: dict[str, Any] = {"encoder_name": name, "encoder_weights": download, "classes": num_classes}
    common |= options.encoder_options
    if options.encoder_options and not name.startswith("tu-"):
        raise ValueError("encoder_options are for timm encoders only")
    if variant == "fpn":
        if width % 32:
            raise ValueError(f"decoder_channels must be divisible by 32 (GroupNorm has 32 groups), got {width}")
        return smp.FPN(decoder_pyramid_channels=2 * width, decoder_segmentation_channels=width, **common)
    if variant == "pspnet":
        return smp.PSPNet(encoder_depth=5, psp_out_channels=width, output_stride=stride, upsampling=stride, **common)
    if variant == "deeplabv3plus":
        return smp.DeepLabV3Plus(encoder_output_stride=stride, decoder_channels=width, **common)
    return smp.Segformer(decoder_segmentation_channels=width, **common)


def _encoder_name(encoder: str) -> str:
    """Return segmentation-models-pytorch's name: `tu-` and timm's, or its own."""
    name = encoder.removeprefix("tu-")
    if timm.is_model(name):
        return f"tu-{name}"
    if name in SMP_ENCODERS and name == encoder:
        return name
    known = [*timm.list_models(), *SMP_ENCODERS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "timm.list_models() lists them"
    raise RecipeError(f"smp: no encoder is called {encoder!r}; {hint}")


def _check_input_size_is_free(name: str, options: Options) -> None:
    """Refuse encoders with a fixed input size (e.g. Swin) unless the recipe sets the option for it."""
    config = timm.get_pretrained_cfg(name.removeprefix("tu-")) if name.startswith("tu-") else None
    if config and config.fixed_input_size and not {"img_size", "strict_img_size"} & set(options.encoder_options):
        raise RecipeError(
            f"smp: encoder {options.encoder!r} takes only {config.input_size[1]}x{config.input_size[2]} images; "
            "set encoder_options.img_size to data.size, or encoder_options.strict_img_size to false"
        )


def _normalisation(name: str) -> tuple[Triple, Triple]:
    """Return mean and std of the encoder's pretraining, ImageNet's where timm has none."""
    config = timm.get_pretrained_cfg(name.removeprefix("tu-")) if name.startswith("tu-") else None
    return (triple(config.mean), triple(config.std)) if config else IMAGENET


def _levels(encoder: Any) -> dict[int, int]:
    """Return stride -> index into the encoder's output list, fine to coarse, without the input itself."""
    channels = encoder.out_channels
    if hasattr(encoder, "model"):  # a timm encoder: its list may begin with the input and an empty map
        reductions = encoder.model.feature_info.reduction()
        strides = [1] * (len(channels) - len(reductions)) + reductions
    else:
        strides = [min(2**level, encoder.output_stride) for level in range(len(channels))]
    return {stride: level for level, stride in enumerate(strides) if stride > 1 and channels[level] > 0}


def _load_encoder(encoder: Any, name: str, path: str) -> None:
    """Fill an encoder from the state dict of the whole classifier, whose last layers it does not have."""
    if name.startswith("tu-"):
        fill_timm(encoder.model, name.removeprefix("tu-"), path)
    else:
        heads = ("fc.", "_fc.", "classifier.", "last_linear.", "head.")
        what = f"encoder_weights {path}"
        fill(encoder, load_state(path), what, leftover=lambda key: key.startswith(heads))

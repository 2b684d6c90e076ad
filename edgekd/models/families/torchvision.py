"""FCN, DeepLabV3 and LR-ASPP of torchvision, as teachers; weights only from local files, nothing is downloaded.

Weight names are torchvision's own, so its checkpoints (`deeplabv3_resnet101_coco-586e9e4e.pth`) load as they are; their
auxiliary classifier is left out.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation

from edgekd.board.options import option
from edgekd.models.backbones import IMAGENET, Triple
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.weights import fill, load_state

TASKS = ("semantic",)
VARIANTS = {
    name: getattr(segmentation, name)
    for name in (
        "fcn_resnet50",
        "fcn_resnet101",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
    )
}


@dataclass(frozen=True)
class Options:
    """Start weights and normalisation."""

    encoder_weights: str | None = option(
        None, "File with torchvision's ImageNet state dict of the backbone. `null`: random weights.", is_path=True
    )
    mean: Triple = option(
        IMAGENET[0],
        "Mean of the network's input, for RGB in [0, 1]. `[0, 0, 0]` for a checkpoint whose pixels were only divided by 255.",
    )
    std: Triple = option(
        IMAGENET[1],
        "Standard deviation of the network's input, for RGB in [0, 1]. `[1, 1, 1]` for a checkpoint whose pixels were only "
        "divided by 255.",
    )


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Return the network, with backbone weights from `encoder_weights` when given.

    Raises:
        CheckpointError: the backbone's weights are damaged, incomplete or of another backbone.
    """
    net = VARIANTS[variant](weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=None)
    if options.encoder_weights is not None:
        _load_backbone(net.backbone, options.encoder_weights)
    model = LrasppModel if variant.startswith("lraspp") else SequentialHeadModel
    return model(net, options.mean, options.std)


class TorchvisionModel(DenseModel):
    """Backbone and classifier of torchvision; features are the last map of each stride in the backbone."""

    unused_weights = ("aux_classifier.",)

    def __init__(self, net: Any, decoder_channels: int, mean: Triple, std: Triple) -> None:
        super().__init__(mean, std)
        self.backbone = net.backbone  # an nn.ModuleDict whose modules run one after the other
        self.classifier = net.classifier
        self.taps, self.channels = _taps(self.backbone)
        self.decoder_channels = decoder_channels
        self.size_divisor = max(self.taps)

    def forward_normalized(self, images: Tensor) -> Outputs:
        maps, x = {}, images
        for name, module in self.backbone.items():
            x = maps[name] = module(x)
        decoded, logits = self.classify(maps)
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return Outputs({"logits": logits}, {stride: maps[name] for stride, name in self.taps.items()}, decoded)

    @abstractmethod
    def classify(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the decoder's last map and the logits at its size."""


class SequentialHeadModel(TorchvisionModel):
    """FCN and DeepLabV3: a stack of layers ending in a 1x1 convolution."""

    def __init__(self, net: Any, mean: Triple, std: Triple) -> None:
        super().__init__(net, net.classifier[-1].in_channels, mean, std)
        self.last = list(net.backbone)[-1]

    def classify(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        *layers, to_classes = self.classifier
        x = maps[self.last]
        for layer in layers:
            x = layer(x)
        return x, to_classes(x)


class LrasppModel(TorchvisionModel):
    """LR-ASPP: the gated coarse branch is the decoder's map; a second classifier adds the fine branch's scores.

    Source: arXiv 1905.02244, figure 10, as in torchvision's `LRASPPHead.forward`, whose weights these are.
    """

    def __init__(self, net: Any, mean: Triple, std: Triple) -> None:
        super().__init__(net, net.classifier.high_classifier.in_channels, mean, std)
        roles = {role: name for name, role in net.backbone.return_layers.items()}
        self.low, self.high = roles["low"], roles["high"]

    def classify(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        head, low, high = self.classifier, maps[self.low], maps[self.high]
        gated = head.cbr(high) * head.scale(high)
        decoded = F.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return decoded, head.low_classifier(low) + head.high_classifier(decoded)


def _taps(backbone: nn.ModuleDict) -> tuple[dict[int, str], dict[int, int]]:
    """Return stride -> name of the last module at that stride, and stride -> its channels, by running zeros through."""
    was_training, size = backbone.training, 64
    taps, channels = {}, {}
    x = torch.zeros(1, 3, size, size)
    backbone.eval()
    with torch.no_grad():
        for name, module in backbone.items():
            x = module(x)
            stride = size // x.shape[-1]
            taps[stride], channels[stride] = name, x.shape[1]
    backbone.train(was_training)
    return taps, channels


def _load_backbone(backbone: nn.ModuleDict, path: str) -> None:
    state = {key.removeprefix("features."): value for key, value in load_state(path).items()}
    fill(backbone, state, f"encoder_weights {path}", leftover=lambda key: key.startswith(("fc.", "classifier.")))

"""FCOS, RetinaNet, Faster R-CNN and Mask R-CNN of torchvision, as teachers; weights only from local files.

They are not trained here, and decode and suppress inside: evaluation scores their detections, and feature
methods tap their ResNet-50 and its pyramid. No method compares their dense outputs with a student's. FCOS and RetinaNet
assign objects to levels and points (or anchors) by other rules than edgedet's head and have no distribution of a box side for
`ld`. The R-CNNs have no dense class scores. Weight names are torchvision's own, so its checkpoints
(`fasterrcnn_resnet50_fpn_coco-258fb6c6.pth`) load as they are. Batch norms are frozen, as in those checkpoints.

Classes: torchvision's networks count classes from 1, 0 is the background, and those trained on COCO have 91 outputs, its ids.
Only `output_of_class` depends on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from edgekd.board.options import option
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs, ReadyDetector

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TASKS = ("detection", "instance")
COCO_OUTPUTS = 91
# Source: COCO's paper (arXiv 1405.0312) lists 91 categories; these were never annotated in the 2014 and 2017 releases.
COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_NUMBERS = tuple(number for number in range(1, COCO_OUTPUTS) if number not in COCO_UNUSED)
# Max detections of an image. Evaluation uses the best 100 that lie on the image, as COCO does. torchvision's default of 100
# would include boxes in the bars of a letterbox, without area, or of other classes.
MAX_DETECTIONS = 300
# Channels of ResNet-50's stages by stride. The pyramid has levels at the same strides; torchvision's further levels (64 and 128)
# are not tapped.
CHANNELS = {4: 256, 8: 512, 16: 1024, 32: 2048}


@dataclass(frozen=True)
class Variant:
    """A torchvision function, its tasks, and the stride of its pyramid's finest level."""

    function: Callable[..., nn.Module]
    finest: int
    tasks: tuple[str, ...] = ("detection",)


VARIANTS = {
    "fcos_resnet50_fpn": Variant(detection.fcos_resnet50_fpn, 8),
    "retinanet_resnet50_fpn": Variant(detection.retinanet_resnet50_fpn, 8),
    "retinanet_resnet50_fpn_v2": Variant(detection.retinanet_resnet50_fpn_v2, 8),
    "fasterrcnn_resnet50_fpn": Variant(detection.fasterrcnn_resnet50_fpn, 4),
    "fasterrcnn_resnet50_fpn_v2": Variant(detection.fasterrcnn_resnet50_fpn_v2, 4),
    "maskrcnn_resnet50_fpn": Variant(detection.maskrcnn_resnet50_fpn, 4, TASKS),
    "maskrcnn_resnet50_fpn_v2": Variant(detection.maskrcnn_resnet50_fpn_v2, 4, TASKS),
}


@dataclass(frozen=True)
class Options:
    """Mapping from outputs to classes, and the maps that distillation methods get."""

    labels: Literal["background_first", "coco"] | tuple[int, ...] = option(
        "background_first",
        "Output of each class. `background_first`: output i + 1 is class i. `coco`: COCO's 91 ids for its 80 classes. A "
        "list: the output of each class of the data set, e.g. `[1, 3]` for persons and cars by COCO's ids.",
    )
    outputs: int = option(COCO_OUTPUTS, "Number of outputs, background included, when `labels` is a list.")
    finest: Literal[4, 8] = option(
        8,
        "Stride of the pyramid level that methods take as the decoder's map; coarser levels are its pyramid. Use the "
        "student's finest stride. Only the R-CNNs have 4.",
    )
    norm_eps: float = option(
        1e-5,
        "Epsilon of the frozen batch norms. 0 for torchvision's COCO_V1 files of RetinaNet, Faster R-CNN and Mask R-CNN.",
    )


def build(variant: str, task: str, num_classes: int, options: Options) -> TorchvisionDetector:
    """Return the network with random weights.

    Raises:
        RecipeError: the variant has no masks and the task wants them, no level `finest`, or `labels` do not fit the classes.
    """
    chosen = VARIANTS[variant]
    if task not in chosen.tasks:
        others = [name for name, one in VARIANTS.items() if task in one.tasks]
        raise RecipeError(f"torchvision_det {variant}: expected a network for task {task!r}; use {' or '.join(others)}")
    if options.finest < chosen.finest:
        raise RecipeError(f"torchvision_det.finest: the pyramid of {variant} begins at stride 8, got 4; use 8")
    outputs, numbers = output_of_class(options, num_classes)
    net = chosen.function(weights=None, weights_backbone=None, num_classes=outputs)
    strides = tuple(stride for stride in CHANNELS if stride >= chosen.finest)
    levels = tuple(stride for stride in CHANNELS if stride >= options.finest)
    net = frozen(net, options.norm_eps)
    return TorchvisionDetector(net, strides, levels, class_of_output(outputs, numbers), task)


def output_of_class(options: Options, num_classes: int) -> tuple[int, tuple[int, ...]]:
    """Return the number of outputs, and the output of every class of the data set.

    Raises:
        RecipeError: `labels` are for another number of classes, or name an output twice or one that there is not.
    """
    if options.labels == "background_first":
        return num_classes + 1, tuple(range(1, num_classes + 1))
    if isinstance(options.labels, str):
        outputs, numbers = COCO_OUTPUTS, COCO_NUMBERS
    else:
        outputs, numbers = options.outputs, options.labels
    wrong = [number for number in numbers if not 0 <= number < outputs or numbers.count(number) > 1]
    if len(numbers) != num_classes or wrong:
        got = f"{wrong[0]}, which is twice there or not below {outputs}" if wrong else f"{len(numbers)} of them"
        raise RecipeError(
            f"torchvision_det.labels: expected the output of each of the data set's {num_classes} classes, got {got}; "
            "list them in the order of its classes"
        )
    return outputs, numbers


def class_of_output(outputs: int, numbers: tuple[int, ...]) -> Tensor:
    """Return (outputs,) int64: the class of each output, -1 for outputs without a class of the data set."""
    table = torch.full((outputs,), -1, dtype=torch.int64)
    table[list(numbers)] = torch.arange(len(numbers))
    return table


class TorchvisionDetector(ReadyDetector):
    """The network; see the module's first lines. Input height and width must be divisible by 32."""

    size_divisor = 32

    def __init__(
        self, net: Any, strides: tuple[int, ...], levels: tuple[int, ...], class_of: Tensor, task: str
    ) -> None:
        super().__init__(MEAN, STD)
        net.transform = _NoTransform()
        self.net = net.eval()
        self.has_masks = task == "instance"
        getattr(net, "roi_heads", net).detections_per_img = MAX_DETECTIONS
        self.channels = {stride: CHANNELS[stride] for stride in strides}
        self.decoder_channels = net.backbone.out_channels
        self.level_strides = levels
        self.register_buffer("class_of", class_of, persistent=False)
        self.class_of: Tensor

    def weights_module(self) -> nn.Module:
        return self.net

    def train(self, mode: bool = True) -> TorchvisionDetector:
        """Set the mode of this module; the network stays in eval mode, as it needs targets in training mode."""
        super().train(mode)
        self.net.train(False)
        return self

    def forward_normalized(self, images: Tensor) -> Outputs:
        maps = self.net.backbone.body(images)
        features = dict(zip(self.channels, maps.values(), strict=True))
        pyramid = dict(zip(self.channels, self.net.backbone.fpn(maps).values(), strict=False))
        levels = {stride: pyramid[stride] for stride in self.level_strides}
        return Outputs({}, features, levels[min(levels)], levels)

    def detect_normalized(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            by_image = [self._padded(one) for one in self.net(images)]
        return {f"found_{name}": torch.stack([one[name] for one in by_image]) for name in by_image[0]}

    def _padded(self, detections: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the detections of one image, without those of unused outputs, padded with zeros to MAX_DETECTIONS rows."""
        labels = self.class_of[detections["labels"]]
        used = (labels >= 0).nonzero().squeeze(1)[:MAX_DETECTIONS]
        names = ("boxes", "scores", "masks") if self.has_masks else ("boxes", "scores")
        parts = {name: detections[name][used] for name in names} | {"labels": labels[used]}
        if self.has_masks:
            parts["masks"] = parts["masks"].squeeze(1)  # (n, 28, 28)
        return {
            name: torch.cat([value, value.new_zeros(MAX_DETECTIONS - len(value), *value.shape[1:])])
            for name, value in parts.items()
        }


class _NoTransform(nn.Module):
    """Replaces torchvision's resizing and normalising, which edgekd's preprocessing has done."""

    def forward(self, images: Tensor, targets: None = None) -> tuple[ImageList, None]:
        return ImageList(images, [(images.shape[2], images.shape[3])] * len(images)), None

    def postprocess(self, result: list[dict[str, Tensor]], sizes: Any, original_sizes: Any) -> list[dict[str, Tensor]]:
        """Return the detections on the input, the masks over their boxes."""
        return result


def frozen(module: nn.Module, eps: float) -> nn.Module:
    """Replace every batch norm of a module by a frozen one and return the module."""
    if isinstance(module, nn.BatchNorm2d):
        return FrozenBatchNorm2d(module.num_features, eps)
    for name, child in module.named_children():
        setattr(module, name, frozen(child, eps))
    return module

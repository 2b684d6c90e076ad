"""Edgekd's own detectors and instance segmenters: one stage, anchor-free, plain convolutions.

    backbone -> pooled context -> top-down pyramid with adds -> one head for all levels (scores, boxes, and for
    instances mask coefficients) -> and for instances mask prototypes from the finest level

The backbone is `edgeseg`'s of the same variant, or any timm model (`encoder`); teacher and student then differ
only in backbone and widths. The graph decodes nothing: `board/detection.py` does that, here and on boards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.errors import RecipeError
from edgekd.models.backbones import SIZES, STRIDES, EdgeBackbone, Size, TimmBackbone
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.blocks import PooledContext, TopDown, initialise
from edgekd.models.heads import MASK_STRIDE, DetectionHead, Prototypes

TASKS = ("detection", "instance")
VARIANTS = SIZES


@dataclass(frozen=True)
class Options:
    """Backbone, pyramid and head."""

    encoder: str | None = option(None, "Name of a timm model as the backbone. `null`: edgekd's own of the variant.")
    encoder_weights: str | Literal[True] | None = option(
        None,
        "File with the timm model's state dict. `true`: download it from timm's hub. `null`: random weights.",
        is_path=True,
    )
    strides: tuple[int, ...] = option(
        (8, 16, 32), "Strides of the pyramid levels, fine to coarse. Level 4 finds objects of a few pixels, at a cost."
    )
    depth: int = option(2, "Number of 3x3 convolutions in the head before its outputs.")
    prototypes: int = option(16, "Number of mask prototypes that an object's mask is mixed from (instances only).")


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Return the network.

    Raises:
        RecipeError: strides that are not in a row of 4, 8, 16, 32 up to 32, or an unknown encoder.
        CheckpointError: the encoder's weights do not fit.
    """
    if not options.strides or options.strides != STRIDES[-len(options.strides) :]:
        raise RecipeError(f"edgedet.strides: expected the last ones of {list(STRIDES)}, got {list(options.strides)}")
    return EdgeDet(SIZES[variant], num_classes, options, has_masks=task == "instance")


class EdgeDet(DenseModel):
    """The network; see the module's first lines. Input height and width must be divisible by 32."""

    size_divisor = 32

    def __init__(self, size: Size, num_classes: int, options: Options, has_masks: bool) -> None:
        backbone = TimmBackbone(options.encoder, options.encoder_weights) if options.encoder else EdgeBackbone(size)
        super().__init__(backbone.mean, backbone.std)
        self.channels = dict(backbone.channels)
        self.decoder_channels = width = size.decoder
        self.strides = options.strides
        self.level_strides = options.strides
        self.context = PooledContext(self.channels[32], width)
        self.top_down = nn.ModuleList(TopDown(self.channels[stride], width) for stride in reversed(self.strides[:-1]))
        initialise(self)
        self.backbone = backbone
        if not options.encoder:
            initialise(backbone)
        coefficients = options.prototypes if has_masks else 0
        self.head = DetectionHead(width, num_classes, self.strides, options.depth, coefficients)
        self.prototypes = Prototypes(width, coefficients, self.strides[0] // MASK_STRIDE) if has_masks else None

    def forward_normalized(self, images: Tensor) -> Outputs:
        features = self.backbone(images)
        pyramid = {32: self.context(features[32])}
        for step, stride in zip(self.top_down, reversed(self.strides[:-1]), strict=True):
            pyramid[stride] = step(pyramid[2 * stride], features[stride])
        finest = pyramid[self.strides[0]]
        heads = self.head(pyramid)
        if self.prototypes is not None:
            heads["prototypes"] = self.prototypes(finest)
        return Outputs(heads, features, finest, {stride: pyramid[stride] for stride in self.strides})

"""Edgekd's own students: plain convolutional networks that every NPU runs without a fallback to the CPU.

    stem (two stride-2 convolutions) -> residual stages at strides 4, 8, 16, 32 -> pooled context
    -> top-down decoder with adds, back to stride 4 -> 1x1 classifier -> bilinear x4

The exported graph holds Conv, Relu, Add, Concat, MaxPool 5x5 and Resize x2/x4 and nothing else (a test says so).
Parameters (11 classes) and multiply-accumulates at 256x320, from `edgekd.models.build.count`:

    variant  parameters   MACs         for
    n            0.12 M    0.10 G      microcontroller-class NPUs
    xs           0.23 M    0.20 G
    s            0.49 M    0.40 G
    m            0.88 M    0.58 G      the usual student
    l            3.53 M    1.49 G      a teacher that trains from scratch in minutes
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.models.backbones import IMAGENET, SIZES, STRIDES, Size, edge_stages, run_stages
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.blocks import PooledContext, TopDown, initialise

TASKS = ("semantic",)
VARIANTS = SIZES


@dataclass(frozen=True)
class Options:
    """Maps that the distillation methods get."""

    before_relu: bool = option(
        False, "Methods compare the maps of the stages before their last ReLU. The network stays the same."
    )


def build(variant: str, task: str, num_classes: int, options: Options) -> DenseModel:
    """Return an untrained network."""
    return EdgeSeg(VARIANTS[variant], num_classes, options.before_relu)


class EdgeSeg(DenseModel):
    """The network; see the module's first lines. Input height and width must be divisible by 32."""

    size_divisor = 32

    def __init__(self, size: Size, num_classes: int, before_relu: bool = False) -> None:
        super().__init__(*IMAGENET)
        self.before_relu = before_relu
        self.channels = dict(zip(STRIDES, size.widths, strict=True))
        self.decoder_channels = size.decoder
        self.stem, self.stages = edge_stages(size)
        self.context = PooledContext(size.widths[-1], size.decoder)
        self.top_down = nn.ModuleList(TopDown(width, size.decoder) for width in reversed(size.widths[:-1]))
        self.classifier = nn.Conv2d(size.decoder, num_classes, kernel_size=1)
        self.up = nn.Upsample(scale_factor=STRIDES[0], mode="bilinear", align_corners=False)
        initialise(self)
        # Not smaller, as detectors like it: with std 0.01 the decoder's ReLUs died on the rare classes, whose pixels
        # then all got the same probabilities (three-class discs and lines, 150 to 500 steps, variants n and s).
        nn.init.xavier_normal_(self.classifier.weight)

    def forward_normalized(self, images: Tensor) -> Outputs:
        maps, features = run_stages(self.stem, self.stages, images, self.before_relu)
        x = self.context(maps[32])  # (B, D, H/32, W/32)
        for step, stride in zip(self.top_down, reversed(STRIDES[:-1]), strict=True):
            x = step(x, maps[stride])  # (B, D, H/stride, W/stride)
        return Outputs({"logits": self.up(self.classifier(x))}, features, x)

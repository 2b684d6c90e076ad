"""Dense heads of detectors and instance segmenters: scores, box distributions, mask coefficients, prototypes.

Fully convolutional, ReLU and batch norm only. Scores and boxes are separate outputs on every level: one int8 tensor
that holds both would have the range of the boxes, and the scores would all become 0.

Sources: FCOS (arXiv 1904.01355) for the anchor-free head, GFL (arXiv 2006.04388) for the box distributions, YOLACT
(arXiv 1904.02689) for prototypes and coefficients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.models.blocks import ConvNorm, initialise

BINS = 17  # bins of a side's distribution: 0 ... 16 strides, as in GFL
MASK_STRIDE = 4  # stride of the prototypes
SHARPNESS = 0.4  # decrease of an untrained side's logits per bin: the expected distance is 2 strides, the size of most objects, not 8
PRIOR = 0.01  # initial probability of a score: a larger one would let the background dominate the first steps


class DetectionHead(nn.Module):
    """One head for all levels: towers of 3x3 convolutions, then 1x1 outputs.

    Towers are shared between the levels, their batch norms are not: the levels' statistics differ (arXiv 1811.07275).
    """

    def __init__(
        self, channels: int, num_classes: int, strides: tuple[int, ...], depth: int, coefficients: int
    ) -> None:
        super().__init__()
        self.strides = strides
        self.score_tower = SharedTower(channels, depth, len(strides))
        self.box_tower = SharedTower(channels, depth, len(strides))
        self.scores = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.boxes = nn.Conv2d(channels, 4 * BINS, kernel_size=1)
        self.coefficients = nn.Conv2d(channels, coefficients, kernel_size=1) if coefficients else None
        initialise(self)
        outputs = [self.scores, self.boxes, *([self.coefficients] if self.coefficients else [])]
        for layer in outputs:
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(self.scores.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        with torch.no_grad():
            self.boxes.bias.copy_(-SHARPNESS * torch.arange(BINS).repeat(4))  # type: ignore[union-attr]

    def forward(self, pyramid: dict[int, Tensor]) -> dict[str, Tensor]:
        """Return `scores_<stride>` (B, K, h, w) logits, `boxes_<stride>` (B, 4 * BINS, h, w) logits of the distances
        left, top, right, bottom in strides, and, for instances, `coefficients_<stride>` (B, P, h, w)."""
        outputs: dict[str, Tensor] = {}
        for level, stride in enumerate(self.strides):
            x = pyramid[stride]
            of_boxes = self.box_tower(x, level)
            outputs[f"scores_{stride}"] = self.scores(self.score_tower(x, level))
            outputs[f"boxes_{stride}"] = self.boxes(of_boxes)
            if self.coefficients is not None:
                outputs[f"coefficients_{stride}"] = self.coefficients(of_boxes)
        return outputs


class SharedTower(nn.Module):
    """Convolutions that all levels share, each followed by the level's own batch norm and ReLU."""

    def __init__(self, channels: int, depth: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth)) for _ in range(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        norms = self.norms[level]
        assert isinstance(norms, nn.ModuleList)
        for convolution, norm in zip(self.convolutions, norms, strict=True):
            x = norm(convolution(x)).relu()
        return x


class Prototypes(nn.Module):
    """Mask prototypes (B, P, scale h, scale w) from the finest pyramid level (B, C, h, w), non-negative by a ReLU."""

    def __init__(self, channels: int, count: int, scale: int) -> None:
        super().__init__()
        self.before = ConvNorm(channels, channels)
        self.up = nn.Upsample(scale_factor=scale, mode="nearest") if scale > 1 else nn.Identity()
        self.after = ConvNorm(channels, channels)
        self.out = ConvNorm(channels, count, kernel=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.after(self.up(self.before(x))))


def points(size: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """Return (h * w, 2): the cells' centres (x, y) in pixels of the network's input, row by row."""
    y, x = torch.meshgrid(*((torch.arange(n, device=device) + 0.5) * stride for n in size), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def decode(distributions: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (..., N, 4) x1, y1, x2, y2 in pixels: expected distances from the centres (GFL, equation 5).

    Args:
        distributions: (..., N, 4 * BINS) logits.
        centres: (N, 2) pixels.
        strides: (N,) pixels.
    """
    bins = torch.arange(BINS, device=distributions.device, dtype=distributions.dtype)
    distances = distributions.unflatten(-1, (4, BINS)).softmax(dim=-1) @ bins * strides.unsqueeze(1)  # (..., N, 4)
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)

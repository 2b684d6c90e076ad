"""Boundary-privileged distillation: pixel KL on the bands around class borders, channel distributions inside.

Source: Liu et al., "BPKD: Boundary Privileged Knowledge Distillation for Semantic Segmentation", WACV 2024, arXiv
2306.08075. Its training code was never released: the form below follows the paper's idea and is ours in its details.

    E_c = cells with a labelled pixel of class c and one of another class within `radius` pixels    E = union of E_c
    L_edge = edge * tau^2 * mean over classes with a border of mean over E_c of KL( softmax(z_t/tau) || softmax(z_s/tau) )
    L_body = body * CWD (see `cwd`) over the valid cells outside E

Weights: second-hand sources give 50 with a factor 2 for the edge and 20 for the body, in normalisations that we could not
check. The default keeps their ratio, 5 to 1, at a size that fits beside the cross-entropy: 2 and 0.4.
Deviations: whole KL per cell instead of KL between logits that are masked per class; body cells are those that the softmax
runs over, instead of logits set to 0; a border with unlabelled pixels is none; the masks are of cells of `stride` image
pixels, whose logits are the means over their labelled pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX
from edgekd.distill.base import Pyramid, Temperature, Weight, check_at_least
from edgekd.distill.logits import channel_kl, kl_per_pixel, pooled
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weights, temperature and band."""

    edge: Weight = option(2.0, "Weight of the edge term.")
    body: Weight = option(0.4, "Weight of the body term.")
    temperature: Temperature = option(1.0, "Temperature tau of both terms.")
    radius: int = option(3, "Half width of the edge band in image pixels; 3 is the paper's 7 x 7 window.")
    stride: int = option(8, "Image pixels per cell of the pooled logits.")

    def __post_init__(self) -> None:
        check_at_least(1, self.stride, "bpkd.stride")
        check_at_least(1, self.radius, "bpkd.radius")


class Method(nn.Module):
    """Terms `edge` and `body`; no adapter; needs labels."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        self.num_classes = student.num_classes

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return both terms; 0 when no cell is labelled, `edge` also when no two classes meet."""
        options = self.options
        z_t, valid = pooled(teacher.logits.detach(), batch.valid, options.stride)
        z_s, _ = pooled(student.logits, batch.valid, options.stride)
        edges = edge_cells(batch.masks, self.num_classes, options.stride, options.radius) & valid
        kl = kl_per_pixel(z_t, z_s, options.temperature).unsqueeze(1)
        band = edges.sum(dim=(0, 2, 3))  # (K,) cells of each class's band
        edge = ((kl * edges).sum(dim=(0, 2, 3)) / band.clamp_min(1)).sum() / (band > 0).sum().clamp_min(1)
        body = channel_kl(z_t, z_s, valid & ~edges.any(dim=1, keepdim=True), options.temperature)
        return {"edge": options.edge * edge, "body": options.body * body}


def edge_cells(masks: Tensor, num_classes: int, stride: int, radius: int) -> Tensor:
    """Return (B, K, h, w) bool: cells from which a pixel of the class and one of another are at most `radius` away.

    Where all pixels are labelled, that is where dilation minus erosion of the class's mask, with a window of
    2 radius + 1 pixels, is not 0. masks are (B, H, W) class indices; pixels without a label and outside of the image
    are of no class.
    """
    known = torch.where(masks == IGNORE_INDEX, num_classes, masks)
    padded = F.pad(known, (radius, radius, radius, radius), value=num_classes)
    size = stride + 2 * radius
    windows = padded.unfold(1, size, stride).unfold(2, size, stride).flatten(3).permute(0, 3, 1, 2)
    batch, _, height, width = windows.shape
    present = torch.zeros(batch, num_classes + 1, height, width, dtype=torch.bool, device=masks.device)
    present = present.scatter_(1, windows, True)[:, :num_classes]
    return present & (present.sum(dim=1, keepdim=True) > 1)

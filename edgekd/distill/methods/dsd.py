"""Double similarity: how attention changes from stage to stage, and how much the classes resemble each other.

Source: Feng et al., "Double Similarity Distillation for Semantic Image Segmentation", IEEE TIP 2021, arXiv 2107.08591.

    q^l = attention of stage l (see `at`);  stages: backbone's coarsest, decoder, logits
    R^l = (q^{l+1} - q^l) / || q^{l+1} - q^l ||_2
    L_pixel    = pixel    * mean over the two l and images of || R_s^l - R_t^l ||_2^2
    phi_c      = softmax_i( z_ci / tau ), at length 1
    L_category = category * mean over images of mean_{c,c'} ( <phi^s_c, phi^s_c'> - <phi^t_c, phi^t_c'> )^2

Weights: CIRKD's 1000 and 10. The first multiplies a mean over cells, ours a sum, which does not shrink as the map grows:
1000 on its 64 x 128 map is 1000 / 8192 = 0.122.
Deviations: phi at length 1, because the products of distributions over N cells shrink as 1 / N; all maps on the coarsest
grid among them, by average pooling; logits are the labelled means of cells of `stride` pixels; cells of which half or
more pixels carry no label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Temperature, Weight, check_at_least
from edgekd.distill.logits import log_shares, pooled
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

# Attention maps have length 1; where two stages differ by less, the direction of their difference is noise.
_SMALL_RESIDUAL = 1e-3


TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weights and temperature."""

    pixel: Weight = option(0.122, "Weight of the pixel-wise similarity term.")
    category: Weight = option(10.0, "Weight of the category-wise similarity term.")
    temperature: Temperature = option(4.0, "Temperature tau.")
    stride: int = option(8, "Image pixels per cell of the pooled logits.")

    def __post_init__(self) -> None:
        check_at_least(1, self.stride, "dsd.stride")


class Method(nn.Module):
    """Terms `pixel` and `category`; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        for pyramid in (teacher, student):
            taps.channels(pyramid, "backbone", "dsd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return both terms; 0 when no cell is labelled."""
        options = self.options
        z_t, valid = pooled(teacher.logits.detach(), batch.valid, options.stride)
        z_s, _ = pooled(student.logits, batch.valid, options.stride)
        pixel = residual_loss(_stages(teacher, z_t), _stages(student, z_s), batch.labelled)
        category = category_loss(z_t, z_s, valid, options.temperature)
        return {"pixel": options.pixel * pixel, "category": options.category * category}


def residual_loss(teacher: list[Tensor], student: list[Tensor], labelled: Tensor) -> Tensor:
    """Return the mean squared distance of the attention residuals.

    teacher, student: maps (B, C, h, w) of successive stages, of any size; labelled: (B, 1, H, W) float.
    """
    maps = [*(x.detach() for x in teacher), *student]
    grid = (min(x.shape[-2] for x in maps), min(x.shape[-1] for x in maps))
    valid = relations.cells(labelled, grid)
    attention = [relations.attention(relations.pooled_to(x.float(), grid, labelled), valid) for x in maps]
    of_teacher, of_student = attention[: len(teacher)], attention[len(teacher) :]
    steps = [_residual(s) - _residual(t) for s, t in zip(pairwise(of_student), pairwise(of_teacher), strict=True)]
    distance = torch.stack([step.square().sum(dim=1) for step in steps]).mean(dim=0)  # (B,)
    return distance.sum() / valid.flatten(1).any(dim=1).sum().clamp_min(1)


def category_loss(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return the mean squared difference of class similarities, for logits (B, K, h, w) and valid (B, 1, h, w) bool."""
    shares = (log_shares(z, valid, temperature).exp() for z in (teacher, student))
    of_teacher, of_student = (unit @ unit.transpose(1, 2) for unit in (F.normalize(s, dim=2) for s in shares))
    has_cells = valid.flatten(1).any(dim=1).float()  # (B,)
    error = (of_student - of_teacher).square().mean(dim=(1, 2))
    return (error * has_cells).sum() / has_cells.sum().clamp_min(1)


def _stages(outputs: Outputs, logits: Tensor) -> list[Tensor]:
    return [outputs.features[max(outputs.features)], outputs.decoder, logits]


def _residual(stages: tuple[Tensor, Tensor]) -> Tensor:
    return F.normalize(stages[1] - stages[0], dim=1, eps=_SMALL_RESIDUAL)

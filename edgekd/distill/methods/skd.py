"""Structured knowledge distillation: class distributions per pixel, and similarities of all pairs of cells.

Source: Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, arXiv 1903.04197.

    L_pixel    = pixel    * T^2 * mean_p KL( softmax(z_t / T) || softmax(z_s / T) )
    L_pairwise = pairwise * mean over images of mean_{i,j} ( a^s_ij - a^t_ij )^2,    a_ij = <F_i, F_j> / (|F_i| |F_j|)

Weights: pixel 1 and pairwise 10, CIRKD's for these same two means. The authors' 10 and 0.5 belong to sums over the batch
and to a relation matrix of 2 x 2 nodes.
Deviations: the adversarial term (a discriminator on the class maps) is left out; KL instead of cross-entropy, whose
gradient is the same; cells are made by average pooling to at most `tokens`, and are not weighed by a detached norm;
pixels without a label, and cells of which half or more have none, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Temperature, Weight
from edgekd.distill.logits import pixel_kl
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weights, temperature and maps."""

    pixel: Weight = option(1.0, "Weight of the pixel term. 0 switches it off at no cost.")
    pairwise: Weight = option(10.0, "Weight of the pairwise term. 0 switches it off at no cost.")
    temperature: Temperature = option(1.0, "Temperature T of the pixel term.")
    at: taps.MapName = option("decoder", "Map of the pairwise term: `decoder`, or `backbone` (its coarsest stage).")
    tokens: int = option(512, "Max cells of the relation matrix, at most 4096. It takes tokens^2 floats per image.")

    def __post_init__(self) -> None:
        taps.check_tokens(self.tokens, "skd")


class Method(nn.Module):
    """Terms `pixel` and `pairwise`; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        if options.pairwise > 0:
            taps.channels(teacher, options.at, "skd")
            taps.channels(student, options.at, "skd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that are switched on."""
        options, terms = self.options, {}
        if options.pixel > 0:
            kl = pixel_kl(teacher.logits, student.logits, batch.valid, options.temperature)
            terms["pixel"] = options.pixel * kl
        if options.pairwise > 0:
            map_t, map_s, valid = taps.pair(teacher, student, batch, options.at, options.tokens)
            terms["pairwise"] = options.pairwise * pairwise_loss(map_t, map_s, valid)
        return terms


def pairwise_loss(teacher: Tensor, student: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared difference of cosines, for maps on one grid and valid (B, 1, h, w) bool."""
    cosines = (unit @ unit.transpose(1, 2) for unit in (relations.unit_cells(x) for x in (teacher, student)))
    of_teacher, of_student = cosines  # (B, N, N)
    cell = valid.flatten(1).float()  # (B, N)
    squares = torch.einsum("bij,bi,bj->b", (of_student - of_teacher).square(), cell, cell)
    pairs = cell.sum(dim=1).square()
    return (squares / pairs.clamp_min(1)).sum() / (pairs > 0).sum().clamp_min(1)

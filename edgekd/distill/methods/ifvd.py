"""Intra-class feature variation: how much each cell resembles the centre of its class.

Source: Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation", ECCV 2020 (not on arXiv).

    mu_k = mean of F_i over the cells i of class k in the image      (classes from the labels, nearest pixel)
    m_i  = cos( F_i, mu_{y_i} )
    L = variation * mean over valid cells of ( m^s_i - m^t_i )^2

Weight: 20, CIRKD's beside pixel KL with weight 1 (our `kd`). The official 200 stands beside a pixel KL that is divided by
the number of classes.
Deviations: the pixel KL and the adversarial term are not part of it: add `kd` to the recipe. The finer of two maps is
average-pooled to the other's grid; cells whose nearest pixel carries no label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Weight
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weight and maps."""

    variation: Weight = option(20.0, "Weight of the term.")
    at: taps.MapName = option("decoder", "Map to compare: `decoder`, or `backbone` (its coarsest stage).")


class Method(nn.Module):
    """One term, `variation`; no adapter; needs labels."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        self.num_classes = student.num_classes
        for pyramid in (teacher, student):
            taps.channels(pyramid, options.at, "ifvd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over the labelled cells of the batch; 0 when there are none."""
        map_t, map_s, _ = taps.pair(teacher, student, batch, self.options.at)
        labels = F.interpolate(batch.masks.unsqueeze(1).float(), tuple(map_s.shape[-2:]), mode="nearest-exact")
        members = self._members(labels.long())
        weight = members.sum(dim=1)  # (B, N), 1 where the cell has a class
        error = (similarity(map_s, members) - similarity(map_t, members)).square()
        loss = (error * weight).sum() / weight.sum().clamp_min(1)
        return {"variation": self.options.variation * loss}

    def _members(self, labels: Tensor) -> Tensor:
        """Return (B, K, N) float: 1 where a cell belongs to a class; labels are (B, 1, h, w)."""
        classes = torch.arange(self.num_classes, device=labels.device).view(1, -1, 1)
        return (labels.flatten(2) == classes).float()


def similarity(features: Tensor, members: Tensor) -> Tensor:
    """Return m (B, N), the cosine of each cell and its class centre, for features (B, C, h, w); 0 without a class.

    Matrix products instead of scatter and gather: the order of their sums is fixed, also on GPUs.
    """
    tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
    centres = members @ tokens / members.sum(dim=2, keepdim=True).clamp_min(1)  # (B, K, C)
    own = relations.unit_vectors(centres)
    return (relations.unit_vectors(tokens) * (members.transpose(1, 2) @ own)).sum(dim=2)

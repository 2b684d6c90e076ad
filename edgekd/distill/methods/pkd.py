"""Pearson distillation: each channel of the student's features need only correlate with the teacher's.

Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
NeurIPS 2022, arXiv 2207.02039.

    z_c = ( F_c - mean F_c ) / std F_c                     over the valid cells of the whole batch
    L = features / 2 * mean_{c,i} ( z^s_ci - z^t_ci )^2 = features * mean_c ( 1 - r_c )        r: Pearson's correlation

Weight: 1. The paper's 6 (two-stage) and 10 (one-stage) stand beside the summed losses of a detector; beside a pixel
cross-entropy they would be most of the loss.
Deviations: one map of a segmentation network instead of the levels of a detector's pyramid; a 1x1 convolution where the
channels differ (the paper's pyramids agree); channels that the teacher leaves constant are left out; the finer of two
maps is average-pooled to the other's grid; cells of which half or more pixels carry no label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.distill import relations, taps
from edgekd.distill.base import Batch, Pyramid, Weight
from edgekd.models.base import Outputs

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """features: weight. at: the maps that are compared, `decoder` or `backbone` (its coarsest stage)."""

    features: Weight = 1.0
    at: taps.Place = "decoder"


class Method(nn.Module):
    """One term, `features`; a 1x1 adapter where the channels differ."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        into, out = (taps.channels(pyramid, options.at, "pkd") for pyramid in (student, teacher))
        self.adapter = taps.projection(into, out)

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over channels of 1 - r; 0 when no cell is labelled."""
        with torch.autocast(student.decoder.device.type, enabled=False):
            map_t, map_s = taps.pair(teacher, student, self.options.at)
            valid = relations.cells(batch.valid.float().unsqueeze(1), map_s)
            r, defined = relations.correlation(map_t, self.adapter(map_s), valid, (0, 2, 3))  # (1, C, 1, 1)
            loss = ((1 - r) * defined).sum() / defined.sum().clamp_min(1)
        return {"features": self.options.features * loss}

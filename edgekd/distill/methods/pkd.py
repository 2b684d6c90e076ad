"""Pearson distillation: maximises the correlation of each feature channel with the teacher's.

Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
NeurIPS 2022, arXiv 2207.02039.

    z_c = ( F_c - mean F_c ) / std F_c                     over the valid cells of the whole batch
    L = features / 2 * mean_{c,i} ( z^s_ci - z^t_ci )^2 = features * mean_c ( 1 - r_c )        r: Pearson's correlation

Weight: 1. The paper's 6 (two-stage) and 10 (one-stage) stand beside the summed losses of a detector; beside a pixel
cross-entropy they would be most of the loss.
Deviations: of a segmentation network one map takes part, of a detector the levels of the pyramid that both networks have
(the mean over them); a 1x1 convolution where the channels differ (the paper's pyramids agree); channels that the teacher
leaves constant are left out; the finer of two maps is average-pooled to the other's grid; cells of which half or more
pixels carry no label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Weight
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weight and maps."""

    features: Weight = option(1.0, "Weight of the term.")
    at: taps.MapName | Literal["levels"] | None = option(
        None,
        "Maps to compare: `decoder`, `backbone` (its coarsest stage) or `levels` (pyramid levels that both detectors have). "
        "`null`: `decoder` of segmenters, else `levels`.",
    )


class Method(nn.Module):
    """One term, `features`; a 1x1 adapter where the channels differ, with `levels` one per level.

    Raises:
        RecipeError: levels asked of segmentation networks, which have none.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.weight = options.features
        self.at = options.at or ("decoder" if student.task == "semantic" else "levels")
        if self.at == "levels" and student.task == "semantic":
            raise RecipeError(
                "pkd.at: expected decoder or backbone for task 'semantic', which has no levels; got 'levels'"
            )
        names = taps.shared_levels(teacher, student, "pkd") if self.at == "levels" else (self.at,)
        at = "decoder" if self.at == "levels" else self.at  # all levels have as many channels as the finest
        into, out = (taps.channels(side, at, "pkd") for side in (student, teacher))
        self.adapters = nn.ModuleDict({str(name): taps.projection(into, out) for name in names})

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over channels of 1 - r, and over levels; 0 when no cell is labelled."""
        losses = []
        for name, adapter in self.adapters.items():
            if self.at == "levels":
                map_t, map_s, valid = taps.level_pair(teacher, student, batch, int(name))
            else:
                map_t, map_s, valid = taps.pair(teacher, student, batch, self.at)
            r, defined = relations.correlation(map_t, adapter(map_s), valid, (0, 2, 3))  # (1, C, 1, 1)
            losses.append(((1 - r) * defined).sum() / defined.sum().clamp_min(1))
        return {"features": self.weight * torch.stack(losses).mean()}

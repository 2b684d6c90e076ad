"""Hint regression: the student's features, through a learned 1x1 convolution, predict the teacher's.

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, equation 3.

    L = features * mean_{c,i} ( r(F_s) - F_t )^2 / mean_{c,i} F_t^2        r: 1x1 convolution; i: valid cells

Weight: released settings multiply the plain mean square (10 in CIRKD), whose size is the teacher's and differs between
teachers by orders of magnitude. Divided by the teacher's mean square the term is 1 for a student that is always 0, for
every teacher; the default weight is 1.
Deviations: that division; no factor 1/2; hint and task are learned together instead of one after the other; the finer
of two maps is average-pooled to the other's grid; cells of which half or more pixels carry no label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Weight
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weight and maps."""

    features: Weight = option(1.0, "Weight of the term.")
    at: taps.MapName = option("decoder", "Map to compare: `decoder`, or `backbone` (its coarsest stage).")


class Method(nn.Module):
    """One term, `features`; a 1x1 adapter with bias, also where the channels agree."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        into, out = (taps.channels(pyramid, options.at, "fitnets") for pyramid in (student, teacher))
        self.adapter = nn.Conv2d(into, out, kernel_size=1)

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the relative squared error; 0 when no cell is labelled."""
        map_t, map_s, valid = taps.pair(teacher, student, batch, self.options.at)
        error = relations.relative_error(self.adapter(map_s), map_t, valid)
        return {"features": self.options.features * error}

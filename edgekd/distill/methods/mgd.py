"""Masked generative distillation: from a quarter of its cells, the student generates the teacher's whole feature map.

Source: Yang et al., "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529.

    m_i ~ Bernoulli(1 - masked)                                   one draw per cell and image
    G = conv3x3( ReLU( conv3x3( m * f(F_s) ) ) )                  f: 1x1 convolution where the channels differ
    L = features * mean_{c,i} ( G - F_t )^2 / mean_{c,i} F_t^2    i: valid cells, masked or not

Weight: the paper's 2e-5 multiplies the sum over channels and cells of one image: 168 times the mean at its 2048 x 64 x 64,
and as much as the teacher's features are large. Divided by the teacher's mean square the term is 1 for a generator that
is always 0, for every teacher and size; the default weight is 1.
Deviations: that division; the decoder's map by default, as the generation block of a backbone's last stage is large;
the logit term is not part of it: add `kd` or `cwd`. The finer of two maps is average-pooled to the other's grid; cells
of which half or more pixels carry no label are always masked and never compared.

The draws come from torch's global generator, which a training run seeds at every step: a resumed run repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """Weight, mask and maps."""

    features: Weight = option(1.0, "Weight of the term.")
    masked: float = option(
        0.75, "Share of cells hidden from the generator, 0 to below 1. The paper segments with 0.75."
    )
    at: taps.MapName = option("decoder", "Map to compare: `decoder`, or `backbone` (its coarsest stage).")

    def __post_init__(self) -> None:
        if not 0 <= self.masked < 1:
            raise RecipeError(f"mgd.masked: expected a share from 0 to below 1, got {self.masked:g}")


class Method(nn.Module):
    """One term, `features`; a 1x1 adapter where the channels differ, and the generation block."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        into, out = (taps.channels(pyramid, options.at, "mgd") for pyramid in (student, teacher))
        self.adapter = taps.projection(into, out)
        self.generation = nn.Sequential(
            nn.Conv2d(out, out, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(out, out, kernel_size=3, padding=1)
        )

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the relative squared error; 0 when no cell is labelled."""
        map_t, map_s, valid = taps.pair(teacher, student, batch, self.options.at)
        seen = torch.rand(valid.shape, device=valid.device) >= self.options.masked
        generated = self.generation(self.adapter(map_s) * (seen & valid))
        error = relations.relative_error(generated, map_t, valid)
        return {"features": self.options.features * error}

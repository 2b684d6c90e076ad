"""Channel-wise distillation: each channel is a distribution over the image; KL between teacher's and student's.

Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256, equations
2 to 4, on logits (the released setting: tau 4, weight 3), or on features (its section 4.3, tau 1; for detectors too).

    phi_c = softmax over pixels of z_c / tau
    L = tau^2 / C * sum_c KL( phi_c(z_t) || phi_c(z_s) ),  mean over the batch

Deviations: logits are average-pooled to cells of `stride` pixels first, because neighbouring pixels of an upsampled map
repeat each other; pixels without a label are left out of the average, and cells of which half or more have none are
left out of the softmax. Of features the finer map is average-pooled to the other's grid, and the student's go through a 1x1
convolution where the channels differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import taps
from edgekd.distill.base import Pyramid, Temperature, check_at_least
from edgekd.distill.logits import channel_kl, pooled
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Temperature and maps."""

    temperature: Temperature | None = option(None, "Temperature tau. `null`: 4 for logits, 1 for features.")
    stride: int | None = option(None, "Image pixels per cell of the pooled logits. `null`: 4.")
    at: Literal["logits"] | taps.MapName | None = option(
        None,
        "Map to compare: `logits`, `decoder`, or `backbone` (its coarsest stage). `null`: `logits` of segmenters, else "
        "`decoder`.",
    )

    def __post_init__(self) -> None:
        if self.stride is not None:
            check_at_least(1, self.stride, "cwd.stride")


class Method(nn.Module):
    """One term, `channels`; a 1x1 adapter between features whose channels differ.

    Raises:
        RecipeError: logits asked of detectors, which have none; a stride of features.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        if options.at == "logits" and student.task != "semantic":
            raise RecipeError("cwd.at: expected decoder or backbone for a detector, which has no logits; got 'logits'")
        self.at: taps.MapName | None = None if options.at == "logits" else options.at
        if options.at is None and student.task != "semantic":
            self.at = "decoder"
        if options.stride is not None and self.at is not None:
            raise RecipeError(f"cwd.stride: features are compared cell by cell, got {options.stride}; leave it out")
        self.temperature = options.temperature or (4.0 if self.at is None else 1.0)
        self.stride = options.stride or 4
        self.adapter: nn.Module = nn.Identity()
        if self.at is not None:
            self.adapter = taps.projection(*(taps.channels(side, self.at, "cwd") for side in (student, teacher)))

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean KL over channels and images."""
        if self.at is None:
            (map_t, valid), (map_s, _) = (pooled(z, batch.valid, self.stride) for z in (teacher.logits, student.logits))
            return {"channels": channel_kl(map_t, map_s, valid, self.temperature)}
        map_t, map_s, valid = taps.pair(teacher, student, batch, self.at)
        return {"channels": channel_kl(map_t, self.adapter(map_s), valid, self.temperature)}

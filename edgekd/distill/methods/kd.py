"""Logit distillation: per-pixel KL between the softened class distributions.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2; per pixel as
in dense prediction. Deviation: pixels without a label (255: void, padding) are left out.

    L = T^2 * mean over valid pixels of KL( softmax(z_t / T) || softmax(z_s / T) )
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill.base import Pyramid, Temperature
from edgekd.distill.logits import pixel_kl
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Temperature of the softened distributions."""

    temperature: Temperature = option(
        1.0, "Temperature T. At 1 the term has the scale of the cross-entropy; above, the factor T^2 keeps that scale."
    )


class Method(nn.Module):
    """One term, `logits`; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.temperature = options.temperature

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean KL over the valid pixels of the batch; 0 when there are none."""
        return {"logits": pixel_kl(teacher.logits, student.logits, batch.valid, self.temperature)}

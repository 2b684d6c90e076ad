"""No distillation: the student learns from the labels alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distill.base import Pyramid
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """No options."""


class Method(nn.Module):
    """No term; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return no terms."""
        return {}

"""Task losses: what a network learns from the labels, as named terms whose sum is the task loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgekd.distill.base import Batch
from edgekd.distill.losses.detection import detection_loss
from edgekd.distill.losses.semantic import semantic_loss
from edgekd.models.base import Outputs

# Task -> its loss: terms of the outputs for a batch.
LOSSES: dict[str, Callable[[Outputs, Batch], dict[str, Tensor]]] = {
    "semantic": semantic_loss,
    "detection": detection_loss,
    "instance": detection_loss,
}

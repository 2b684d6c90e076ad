"""Task losses: named terms on the labels, whose sum is the task loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgekd.models.base import Outputs
from edgekd.train.batch import Batch
from edgekd.train.losses.detection import detection_loss
from edgekd.train.losses.semantic import semantic_loss

# Task -> function that returns the loss terms of the outputs for a batch.
LOSSES: dict[str, Callable[[Outputs, Batch], dict[str, Tensor]]] = {
    "semantic": semantic_loss,
    "detection": detection_loss,
    "instance": detection_loss,
}

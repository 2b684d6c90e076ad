"""The frozen teacher of a distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgekd.models.base import DenseModel, Outputs


class FrozenTeacher:
    """A teacher in eval mode, without gradients.

    It is not an nn.Module on purpose. Outside the student's module tree it is never trained, switched to train mode,
    checkpointed, averaged (EMA copies the tree) or exported with it.
    """

    def __init__(self, model: DenseModel, compiled: bool = False) -> None:
        self.model = model.eval().requires_grad_(False)
        self._forward: Callable[[Tensor], Outputs] = torch.compile(self.model) if compiled else self.model

    def __call__(self, images: Tensor) -> Outputs:
        with torch.no_grad():  # not inference_mode: the losses save its tensors for their backward pass
            return self._forward(images)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move the teacher to the device on which the student trains."""
        self.model.to(device=device).to(memory_format=memory_format)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        return self

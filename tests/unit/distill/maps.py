"""Outputs, batches and methods made of the few maps that a test is about."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill.base import Pyramid
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch


def random_map(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outputs(decoder: Tensor | None = None, features: dict[int, Tensor] | None = None, logits: Any = None) -> Outputs:
    blank = torch.zeros(1, 1, 1, 1)
    return Outputs(
        {"logits": blank if logits is None else logits}, features or {}, blank if decoder is None else decoder
    )


def batch(masks: Any) -> Batch:
    """Return a batch with these labels; masks (B, H, W), nested lists or a tensor."""
    return Batch(torch.zeros(1), torch.as_tensor(masks, dtype=torch.int64))


def labelled(images: int, height: int, width: int) -> Batch:
    return batch(torch.zeros(images, height, width))


def method(module: ModuleType, teacher: Outputs, student: Outputs, options: Any = None, classes: int = 3) -> nn.Module:
    """Return the method for networks that give these maps; adapters from a fixed seed."""
    torch.manual_seed(0)
    pyramids = (
        Pyramid({s: f.shape[1] for s, f in out.features.items()}, out.decoder.shape[1], classes)
        for out in (teacher, student)
    )
    return module.Method(options or module.Options(), *pyramids)


def terms(
    module: ModuleType, teacher: Outputs, student: Outputs, labels: Batch, options: Any = None
) -> dict[str, float]:
    """Return the values of the terms."""
    result = method(module, teacher, student, options)(teacher, student, labels)
    return {name: value.item() for name, value in result.items()}

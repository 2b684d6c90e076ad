"""Builds a network by family name; checks input sizes; counts parameters and multiply-accumulates."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekd.core import plugins
from edgekd.errors import RecipeError, UserError, did_you_mean
from edgekd.models.base import DenseModel, ReadyDetector


def build_model(family: str, variant: str, task: str, num_classes: int, options: Any) -> DenseModel:
    """Build an untrained network, with pretrained encoder weights when the options name them.

    Args:
        family: a plugin name, e.g. `smp`.
        variant: one of the family's `VARIANTS`; a family whose `VARIANTS` is None checks the variant itself.
        task: e.g. `semantic`.
        num_classes: channels of the logits.
        options: the family's `Options`, already built.

    Raises:
        UserError: no such family.
        RecipeError: not for this task, no such variant, or an option that does not fit.
        CheckpointError: the encoder's weights are damaged or belong to another network.
    """
    module = plugins.load("families", family)
    if task not in module.TASKS:
        others = [name for name in plugins.names("families") if task in plugins.load("families", name).TASKS]
        raise RecipeError(f"family {family!r} has no networks for task {task!r}; choose {' or '.join(others)}")
    if module.VARIANTS is not None and variant not in module.VARIANTS:
        raise RecipeError(f"family {family!r} has no variant {variant!r}{did_you_mean(variant, module.VARIANTS)}")
    return module.build(variant, task, num_classes, options)


def check_input_size(model: DenseModel, size: tuple[int, int]) -> None:
    """Check that a network takes images of (height, width): those that its coarsest stride divides, or of its one size.

    Raises:
        UserError: it does not; the message has a valid size.
    """
    if model.fixed_size is not None and tuple(size) != tuple(model.fixed_size):
        only = list(model.fixed_size)
        raise UserError(
            f"the network takes only input {only} (height, width), got {list(size)}; set data.size to {only} and leave "
            "out data.augment.crop"
        )
    divisor = model.size_divisor
    for side, length in zip(("height", "width"), size, strict=True):
        if length % divisor or length <= 0:
            nearest = max(divisor, (length + divisor // 2) // divisor * divisor)
            raise UserError(f"input {side} {length} is not divisible by stride {divisor}; use {nearest}")


def count(model: DenseModel, size: tuple[int, int]) -> tuple[int, int]:
    """Count parameters and multiply-accumulates for one image of `size` (height, width).

    Multiply-accumulates are half of torch's FlopCounterMode: convolutions and matrix products only.
    The number of parameters leaves out buffers (batch-norm statistics).
    """
    images = torch.zeros(1, 3, *size, device=model.mean.device, dtype=model.mean.dtype)
    was_training = model.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()
        model.detect_normalized(images) if isinstance(model, ReadyDetector) else model.forward_normalized(images)
    model.train(was_training)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2

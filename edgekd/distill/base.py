"""Distillation methods: named, unweighted loss terms from teacher outputs, student outputs and the batch.

A method is one file `distill/methods/<name>.py` with

    TASKS                                            the tasks whose networks it can compare
    Options                                          a frozen dataclass of `option` fields: the keys under `options`
    Method(options, teacher, student)                an nn.Module; `teacher`, `student` are the two `Pyramid`s
    Method.forward(teacher, student, batch) -> dict of scalar terms

Parameters of a Method (adapters) train with the student and are never exported. A Method runs outside autocast and returns
float32 terms; in mixed precision its maps are bf16 or fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgekd.errors import RecipeError
from edgekd.models.base import DenseModel, ReadyDetector

# Types of options; a recipe's values are checked against them.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Pyramid:
    """Declared channels of a network's feature maps by stride, and of its decoder. Methods make adapters from them.

    level_strides: strides of `Outputs.levels`. has_heads: whether `Outputs.heads` has the heads of the task's logit methods.
    task: the network's task.
    """

    channels: dict[int, int]
    decoder_channels: int
    num_classes: int
    level_strides: tuple[int, ...] = ()
    has_heads: bool = True
    task: str = "semantic"


def pyramid_of(model: DenseModel, num_classes: int, task: str) -> Pyramid:
    """Return the declared pyramid of a network."""
    has_heads = not isinstance(model, ReadyDetector)
    return Pyramid(dict(model.channels), model.decoder_channels, num_classes, model.level_strides, has_heads, task)


def check_at_least(least: int, value: int, key: str) -> None:
    """Check that the option `key` is at least `least`; RecipeError if it is not."""
    if value < least:
        raise RecipeError(f"{key}: expected {least} or more, got {value}")

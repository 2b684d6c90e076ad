"""Parts of `report.json` and `study.json` about one training."""

from __future__ import annotations

from pydantic import Field

from edgekd.report.part import Json, Number, Part, Point


class TrainedMethod(Part):
    """One distillation method of a training."""

    weight: float = Field(description="factor of its loss")
    warmup: Number = Field(None, description="share of the steps in which the weight rises from 0")
    schedule: str = Field("", description="course of the weight after the warm-up")
    options: Json = Field({}, description="the method's own options")


class Trained(Part):
    """Facts of one training, shared by a run's report and a study."""

    steps: int | None = Field(None, description="optimizer steps")
    seconds_per_step: Number = Field(None, description="mean wall-clock time of a step")
    precision: str = Field("", description="precision of the arithmetic, e.g. `32-true`")
    device: str = Field("", description="device, e.g. `cpu` or `cuda:0`")
    world_size: int | None = Field(None, description="number of devices")
    teacher_answers: str | None = Field(
        None, description="`live`, or `kept` when the teacher's outputs came from the disk; null without a teacher"
    )
    peak_memory_bytes: int | None = Field(None, description="largest memory use of the process or of the GPU")
    curve: list[Point] = Field([], description="step and task loss, averaged since the point before")
    validation: list[Point] = Field([], description="step and score on the scored split, a fraction")


class Training(Trained):
    """One training of a run."""

    batch_size: int | None = Field(None, description="images per step over all devices")
    class_weights: list[float] | None = Field(
        None, description="weight of each class in the task loss; null without weights"
    )
    methods: dict[str, TrainedMethod] = Field(
        {}, description="distillation methods by name: weight, warm-up, schedule, options"
    )
    budget: str = Field(
        "", description="`qat` with `when: over_budget`: which targets hold or miss the budget, and by how much"
    )
    zero_loss_steps: int = Field(0, description="steps with a task loss of exactly 0, which taught nothing")

"""Schema of `study.json`: the collector of results builds these models, the table and the figure read them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgekd.report.part import Json, Number, Part, known_task
from edgekd.report.training import Trained, TrainedMethod

SCHEMA: Final = "edgekd.study/1"
FLOAT: Final = ", float"  # after an arm's name: its float network instead of an engine


class Difference(Part):
    """Arm minus baseline over the seeds that both have, in the metric's own unit."""

    by_seed: list[float] = Field(description="differences in the order of the seeds")
    mean: float = Field(description="mean of the differences")
    low: Number = Field(None, description="lower end of the 95 % interval of the mean; null with one seed")
    high: Number = Field(None, description="upper end")
    verdict: str = Field(description="`better`, `worse`, `no measurable difference`, or `one seed`")


class Summary(Part):
    """One metric of an arm over its seeds."""

    mean: float = Field(description="mean over the seeds")
    sd: Number = Field(None, description="standard deviation; null with one seed")
    n: int = Field(description="number of seeds")
    difference: Difference | None = Field(
        None, description="paired difference to the baseline; null for the baseline itself"
    )


class ArmRun(Trained):
    """One student of an arm: one seed."""

    seed: int = Field(description="seed")
    status: Literal["measured", "missing", "failed"] = Field(
        description="`measured`, `missing` (not run yet) or `failed`"
    )
    reason: str = Field("", description="why there is no result")
    metrics: dict[str, Number] = Field({}, description="name -> fraction, see [metrics](metrics.md)")
    params: int | None = Field(None, description="parameters of the student")


class Arm(Part):
    """One arm: a combination of distillation methods, with every seed. In a study of quantization: one engine of an arm, or its
    float network."""

    name: str = Field(description="name of the arm")
    engine: str = Field("", description="study of quantization: id of the scored engine; empty for a float network")
    baseline: str = Field(
        "", description="arm that this one is compared with, where that is not the study's `baseline`"
    )
    methods: dict[str, TrainedMethod] = Field({}, description="distillation methods by name")
    runs: list[ArmRun] = Field([], description="one per seed")
    metrics: dict[str, Summary] = Field({}, description="by metric: `mean`, `sd`, `n`, `difference`")
    seconds_per_step: Number = Field(None, description="mean over the runs")
    peak_memory_bytes: Number = Field(None, description="mean over the runs")


class StudyTeacher(Part):
    """The one teacher of all arms."""

    params: int | None = Field(None, description="parameters")
    metrics: dict[str, Number] = Field({}, description="name -> fraction")


class Study(Part):
    """Comparison of all arms, with the recipe and the environment."""

    schema_: Literal["edgekd.study/1"] = Field(alias="schema", description=f"`{SCHEMA}`")
    recipe_name: str = Field(description="name of the recipe")
    recipe_sha256: str = Field("", description="hash of the recipe")
    recipe: Json = Field(description="the whole recipe with defaults and overrides")
    environment: Json = Field({}, description="machine and package versions, as in `report.json`")
    baseline: str = Field(description="name of the arm that the others are compared with")
    seeds: list[int] = Field(description="all seeds")
    images_sha256: str = Field(
        "", description="hash of the scored images and their labels; absent in files of an earlier edgekd"
    )
    steps: int = Field(description="optimizer steps of each student")
    teacher: StudyTeacher = Field(description="parameters and metrics of the teacher")
    arms: list[Arm] = Field(description="arms in the recipe's order, see below")

    @field_validator("recipe")
    @classmethod
    def _has_a_known_task(cls, recipe: Json) -> Json:
        known_task(str(recipe.get("task")))
        return recipe

    @field_validator("arms")  # after `baseline`, which stands above it
    @classmethod
    def _has_the_baseline(cls, arms: list[Arm], info: ValidationInfo) -> list[Arm]:
        baseline = info.data.get("baseline")
        if baseline is not None and baseline not in [arm.name for arm in arms]:
            raise ValueError(f"none is called {baseline!r}, the baseline")
        return arms

    @property
    def task(self) -> str:
        """Task of the recipe."""
        return str(self.recipe["task"])

    @property
    def is_quantized(self) -> bool:
        """Whether this is a study of quantization, whose arms are engines."""
        return any(arm.engine for arm in self.arms)

    @property
    def float_arms(self) -> list[Arm]:
        """The float networks of a study of quantization."""
        return [arm for arm in self.arms if not arm.engine] if self.is_quantized else []

    def is_baseline(self, arm: Arm) -> bool:
        """Whether others are compared with this arm."""
        return arm.name == (arm.baseline or self.baseline)

    @property
    def baseline_arm(self) -> Arm:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.name == self.baseline)

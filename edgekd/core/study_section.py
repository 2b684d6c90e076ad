"""The recipe section of a study: arms that are compared over seeds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from edgekd.core.plugin_options import PluginOptions
from edgekd.core.training_sections import Method, Section, names_a_folder

PLAIN = "plain"  # the arm without methods


class QuantizedArm(Section):
    """One arm of a study of int8 engines: the student that the engines are built from, and its further training."""

    student: Literal["deployed", "control", "qat"] = Field(
        "deployed",
        description="`deployed`: the distilled student itself. `control`: trained further. `qat`: trained further with "
        "quantizers. Section `qat` has the training budget.",
    )
    methods: dict[str, Method] | None = Field(
        None,
        description="Distillation methods of the further training. `null`: those of `qat.methods`. `{}`: labels alone.",
    )
    precision: Literal["int8", "mixed"] = Field(
        "int8", description="Precision of the engines; `mixed` keeps layers in float."
    )

    @model_validator(mode="after")
    def _trains(self) -> QuantizedArm:
        if self.student == "deployed" and self.methods is not None:
            raise ValueError("`methods` needs further training; set `student: control` or `student: qat`")
        return self


class QuantizedStudy(Section):
    """A study of int8 engines. Each seed trains one distilled student. Each arm builds engines from it and scores them."""

    engines: tuple[str, ...] = Field(
        (), description="Ids of the recipe's int8 engines that are built and scored. Empty: all of them."
    )
    arms: dict[str, QuantizedArm] = Field(
        {},
        description="Arms by name. Empty: `ptq`, `control`, `qat` (labels alone), and `qat+` with the methods of `qat.methods`.",
    )
    baseline: str = Field("control", description="Arm that the others are compared with, engine by engine.")

    @field_validator("arms")
    @classmethod
    def _name_folders(cls, arms: dict[str, QuantizedArm]) -> dict[str, QuantizedArm]:
        for name in arms:
            names_a_folder(name)
            if name in ("teacher", "distilled"):
                raise ValueError(f"{name!r} has a run of its own; rename the arm")
        return arms


class Study(Section):
    """Arms that `edgekd study` compares, each with every seed. The plain student is always an arm."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2), min_length=1, description="Seeds of every arm."
    )
    arms: dict[str, dict[str, Method]] = Field(
        {}, description="Methods of each arm by its name. Empty: one arm with the methods of `distill.methods`."
    )
    baseline: str = Field(PLAIN, description="Arm that the others are compared with, e.g. the best peer.")
    quantized: QuantizedStudy | None = Field(
        None,
        description="Compare int8 engines after PTQ, further training and QAT instead of distillation methods. `null`: no.",
    )
    launcher: str = Field("local", description="Where the runs are done (a plugin): `local`, `slurm` or `ray`.")
    options: PluginOptions = Field(PluginOptions(), description="Options of the launcher.")

    @field_validator("arms")
    @classmethod
    def _name_folders(cls, arms: dict[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        for name, methods in arms.items():
            names_a_folder(name)
            if name == PLAIN and methods:
                raise ValueError(f"{PLAIN!r} is the student without methods; rename the arm")
            if name == "teacher":
                raise ValueError("'teacher' is the teacher's row in the table; rename the arm")
        return arms

    def launcher_options(self) -> Any:
        """Return the launcher's typed options; RecipeError for what it does not know."""
        return self.options.typed("launchers", self.launcher, "study.options")

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("expected every seed once; remove the repeated ones")
        return seeds

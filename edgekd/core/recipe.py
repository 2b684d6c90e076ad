"""A recipe: all sections together, and the plugins that they name.

Sections are frozen and typed, each key with its description. `core/recipe_loading.py` reads a recipe from YAML. This
module is the public face of the sections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, field_validator, model_validator

from edgekd.board.precision import Precision
from edgekd.core import plugins
from edgekd.core.deployment_sections import (
    DEPLOYED,
    LOCAL,
    PTQ,
    Bench,
    Budget,
    Engine,
    EngineParity,
    Evaluate,
    Export,
    Layers,
    Quantize,
    QuantizeVariant,
    on_boards,
)
from edgekd.core.plugin_options import PluginOptions
from edgekd.core.qat_section import CONTROL, QAT, Qat, with_trained
from edgekd.core.study_section import PLAIN, QuantizedArm, Study
from edgekd.core.task_metrics import TASKS
from edgekd.core.training_sections import (
    Augment,
    Data,
    Distill,
    Method,
    Network,
    Section,
    Student,
    Teacher,
    Train,
    Trainer,
    differ_in_case_only,
    names_a_folder,
)
from edgekd.errors import did_you_mean

__all__ = [
    "CONTROL",
    "DEPLOYED",
    "LOCAL",
    "PLAIN",
    "PTQ",
    "QAT",
    "Augment",
    "Bench",
    "Budget",
    "Data",
    "Distill",
    "Engine",
    "EngineParity",
    "Evaluate",
    "Export",
    "Layers",
    "Method",
    "Network",
    "PluginUse",
    "Qat",
    "Quantize",
    "QuantizeVariant",
    "QuantizedArm",
    "Recipe",
    "Section",
    "Student",
    "Study",
    "Teacher",
    "Train",
    "Trainer",
]

_OF_OBJECTS = {"boundary": 1.0, "context": 1.0}


@dataclass(frozen=True)
class PluginUse:
    """A plugin that a recipe names.

    at: keys that lead to its options in the recipe, list items by index.
    where: the same for errors, engines by id.
    """

    kind: str
    name: str
    options: PluginOptions
    at: tuple[str | int, ...]
    where: str

    def typed(self) -> Any:
        """Return the plugin's `Options`; RecipeError when they do not fit."""
        return self.options.typed(self.kind, self.name, self.where)


class Recipe(Section):
    """A whole pipeline."""

    name: str = Field(description="Name of the recipe and of its folder in `runs/`.")
    task: Literal["semantic", "detection", "instance"] = Field("semantic", description="Task of both networks.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything random.")  # the range of Lightning and numpy
    data: Data = Field(description="Data set.")
    teacher: Teacher = Field(description="Teacher network.")
    student: Student = Field(description="Student network.")
    distill: Distill = Field(Distill(), description="Distillation.")
    qat: Qat | None = Field(None, description="Quantization-aware training. `null`: none.")
    trainer: Trainer = Field(Trainer(), description="Place of the training: devices, processes, memory.")
    export: Export = Field(Export(), description="ONNX export.")
    quantize: Quantize = Field(Quantize(), description="Calibration of int8 models.")
    engines: tuple[Engine, ...] = Field((), description="Engines to build.")
    parity: EngineParity = Field(EngineParity(), description="Engines against their ONNX graphs.")
    layers: Layers = Field(Layers(), description="Error of int8 engines layer by layer.")
    check: Literal["stop", "warn", "off"] = Field(
        "stop",
        description="Reaction to a target that is known to refuse or break the student, before any training. `off`: not checked, "
        "as in the runs of a study, which build no engines.",
    )
    bench: Bench = Field(Bench(), description="Latency measurement.")
    evaluate: Evaluate = Field(Evaluate(), description="Scoring.")
    study: Study = Field(Study(), description="Comparison of methods over seeds.")

    @model_validator(mode="before")
    @classmethod
    def _methods_for_the_task(cls, raw: Any) -> Any:
        """Objects have no class map, so that their logit distillation is another by default: `ld` instead of `dist`; and the
        weights of `bckd` beside it are those that were studied with it (recipes/study/bccd.yaml)."""
        if not isinstance(raw, dict) or raw.get("task") not in ("detection", "instance"):
            return raw
        distill = raw.get("distill", {})
        if isinstance(distill, dict) and "methods" not in distill:
            return {**raw, "distill": {**distill, "methods": {"ld": {}, "bckd": {"options": _OF_OBJECTS}}}}
        return raw

    @model_validator(mode="after")
    def _trains_with_the_same_methods(self) -> Recipe:
        """Give section `qat` the methods of the distillation where it names none."""
        if self.qat is not None and "methods" not in self.qat.model_fields_set:
            object.__setattr__(self, "qat", self.qat.model_copy(update={"methods": self.distill.methods}))
        return self

    @field_validator("name")
    @classmethod
    def _names_its_folder(cls, name: str) -> str:
        return names_a_folder(name)

    @model_validator(mode="after")
    def _student_has_weights(self) -> Recipe:
        is_ready = self.student.checkpoint is not None and not self.distill.methods and not self.study.arms
        if self.student.train is None and not is_ready:
            raise ValueError(
                "student needs `train` (a budget); only a `checkpoint` with `distill.methods: {}` is deployed as it is"
            )
        return self

    @model_validator(mode="after")
    def _balances_pixels(self) -> Recipe:
        budgets = {
            "teacher": self.teacher.train,
            "student": self.student.train,
            "qat": self.qat.train if self.qat else None,
        }
        for name, train in budgets.items():
            if train is not None and train.class_balance > 0 and self.task != "semantic":
                raise ValueError(f"{name}.train.class_balance weighs pixels; it has no meaning for task {self.task!r}")
        return self

    @model_validator(mode="after")
    def _caches_what_comes_again(self) -> Recipe:
        if self.trainer.teacher_cache is not None and self.data.augment.views is None:
            raise ValueError(
                "trainer.teacher_cache needs data.augment.views: only fixed views come again; set it, e.g. 8"
            )
        return self

    @model_validator(mode="after")
    def _tolerates_what_the_task_gives(self) -> Recipe:
        used, other = "class_map_tolerance", "detections_tolerance"
        if self.task != "semantic":
            used, other = other, used
        if getattr(self.export, other) != Export.model_fields[other].default:
            raise ValueError(f"export.{other} has no meaning for task {self.task!r}; set export.{used}")
        return self

    @model_validator(mode="after")
    def _graph_keeps_what_is_scored(self) -> Recipe:
        # A graph for letterboxed images keeps 1000 detections (`export/decode.py`).
        most = 1000 if self.data.resize == "letterbox" else 100
        if self.export.detections == "nms" and self.evaluate.max_detections > most:
            raise ValueError(
                f"evaluate.max_detections {self.evaluate.max_detections}: export.detections nms keeps {most} detections per "
                "image in the graph; use heads or boxes"
            )
        return self

    @field_validator("engines", mode="wrap")
    @classmethod
    def _one_for_each_board(
        cls, raw: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Engine, ...]:
        """Make an engine for each board of a list, and for each student; errors name the engine by its index in the recipe."""
        if not isinstance(raw, list | tuple):
            return tuple(check(raw))
        placed = [on_boards(engine) if isinstance(engine, dict) else [engine] for engine in raw]
        checked = check([first for first, *_ in placed])
        others = ([Engine.model_validate(one) for one in more] for _, *more in placed)
        every = tuple(one for first, more in zip(checked, others, strict=True) for one in (first, *more))
        qat = info.data.get("qat")
        return with_trained(every, qat) if isinstance(qat, Qat) else every

    @field_validator("engines")
    @classmethod
    def _unique(cls, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        ids = [engine.id for engine in engines]
        twice = {i for i in ids if ids.count(i) > 1}
        if twice:
            raise ValueError(f"two engines have the id {', '.join(sorted(twice))}; give each an `id` of its own")
        if alike := differ_in_case_only(ids):
            raise ValueError(f"the ids {alike} differ only in case; rename one of the engines")
        return engines

    @model_validator(mode="after")
    def _engines_name_variants(self) -> Recipe:
        known = {PTQ, *self.quantize.variants}
        for engine in self.engines:
            if engine.variant not in known:
                raise ValueError(
                    f"engines.{engine.id}.variant: quantize.variants has no {engine.variant!r}{did_you_mean(engine.variant, known)}"
                )
        return self

    @model_validator(mode="after")
    def _trains_what_it_deploys(self) -> Recipe:
        trained = self.qat.students if self.qat is not None else ()
        for engine in self.engines:
            if engine.student not in (DEPLOYED, *trained):
                needed = "qat.control: true" if self.qat is not None else "section `qat`"
                raise ValueError(
                    f"engines.{engine.id}.student: {engine.student!r} needs {needed}; add it to the recipe"
                )
        for name in self.quantize.variants if trained else ():
            if name.endswith(tuple(f"-{student}" for student in trained)):
                raise ValueError(
                    f"quantize.variants.{name}: with section `qat` a name must not end in -{name.rpartition('-')[2]}; rename it"
                )
        if self.qat is not None and self.qat.when == "over_budget" and self.quantize.budget is None:
            raise ValueError("qat.when: over_budget needs `quantize.budget`: set quantize.budget.max_drop")
        if self.qat is not None and all(engine.student == DEPLOYED for engine in self.engines):
            raise ValueError(
                "qat: no int8 engine uses the trained student; add an int8 engine to `engines`, or remove section `qat`"
            )
        return self

    @model_validator(mode="after")
    def _mixed_engines_have_a_budget(self) -> Recipe:
        for engine in self.engines:
            if engine.precision is Precision.MIXED and self.quantize.budget is None:
                raise ValueError(
                    f"engines.{engine.id}: precision mixed needs `quantize.budget`: set quantize.budget.max_drop"
                )
        return self

    @model_validator(mode="after")
    def _budget_limits_a_metric_of_the_task(self) -> Recipe:
        budget, task = self.quantize.budget, TASKS[self.task]
        if budget is not None and budget.metric not in (None, task.metric, task.second):
            raise ValueError(
                f"quantize.budget.metric: expected {task.metric} or {task.second} for task {self.task!r}, got {budget.metric!r}"
            )
        return self

    def only(self, *sections: str) -> Recipe:
        """Return a copy in which every section that is not named is None.

        So a stage cannot read what its cache key does not cover. `engines:<id>` names a single engine, `engines:@<board>`
        those of a board, and `quantize:<variant>/<quantizer>` the settings of one variant for one quantizer.
        """
        names = {section.partition(":")[0]: section.partition(":")[2] for section in sections}
        update: dict[str, Any] = dict.fromkeys(set(type(self).model_fields) - set(names) - {"name", "task", "seed"})
        if names.get("engines"):
            update["engines"] = tuple(e for e in self.engines if names["engines"] in (e.id, f"@{e.board}"))
        if names.get("quantize"):
            variant, _, quantizer = names["quantize"].partition("/")
            settings = self.quantize.variant(variant)
            options = {quantizer: settings.options.get(quantizer, PluginOptions())}
            boards = self._boards_of(variant, quantizer)
            update["quantize"] = Quantize(
                images=settings.images,
                adjust=settings.adjustments(quantizer),
                options=options,
                budget=self.quantize.budget,
            ).on(boards)
        return self.model_copy(update=update)

    def _boards_of(self, variant: str, quantizer: str) -> tuple[str, ...]:
        """Return the boards of the engines that are compiled from one quantized model, each once."""
        engines = (one for one in self.engines or () if one.precision.is_quantized and one.variant == variant)
        return tuple(
            dict.fromkeys(one.board for one in engines if plugins.target(one.target).info.quantizer == quantizer)
        )

    def plugin_uses(self) -> Iterator[PluginUse]:
        """Return every plugin that has options in the recipe, without those of sections that are None (see `only`)."""
        networks = {"teacher": self.teacher, "student": self.student}
        if self.data is not None:
            yield _use("formats", self.data.format, self.data.options, "data", "options")
        for name, network in networks.items():
            if network is not None:
                yield _use("families", network.family, network.options, name, "options")
        if self.distill is not None:
            yield from _methods(self.distill.methods, "distill", "methods")
        if self.qat is not None:
            yield from _methods(self.qat.methods, "qat", "methods")
        if self.quantize is not None:
            yield from _quantizers(self.quantize, "quantize")
            for name, variant in self.quantize.variants.items():
                yield from _quantizers(variant, "quantize", "variants", name)
        for index, engine in enumerate(self.engines or ()):
            where = f"engines.{engine.id}.options"
            yield PluginUse("targets", engine.target, engine.options, ("engines", index, "options"), where)
        if self.study is not None:
            for name, methods in self.study.arms.items():
                yield from _methods(methods, "study", "arms", name)
            for name, arm in (self.study.quantized.arms if self.study.quantized else {}).items():
                yield from _methods(arm.methods or {}, "study", "quantized", "arms", name, "methods")

    def sha256(self) -> str:
        """Return the hash of the recipe's content, defaults included."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def _use(kind: str, name: str, options: PluginOptions, *at: str) -> PluginUse:
    return PluginUse(kind, name, options, at, ".".join(at))


def _methods(methods: dict[str, Method], *at: str) -> Iterator[PluginUse]:
    return (_use("methods", name, method.options, *at, name, "options") for name, method in methods.items())


def _quantizers(settings: QuantizeVariant, *at: str) -> Iterator[PluginUse]:
    return (_use("quantizers", name, options, *at, "options", name) for name, options in settings.options.items())

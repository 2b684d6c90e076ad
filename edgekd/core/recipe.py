"""Recipe sections: frozen, typed, each key with its description. `core/recipe_loading.py` reads them from YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from edgekd.board.precision import Precision
from edgekd.core.plugin_options import PluginOptions
from edgekd.errors import did_you_mean


class Section(BaseModel):
    """Base of all recipe sections: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _names_a_folder(name: str) -> str:
    if not name.strip() or "/" in name or name.startswith("."):
        raise ValueError("expected a name that can be a folder's: not empty, no '/', no '.' in front")
    return name


class Augment(Section):
    """Training augmentation."""

    crop: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Size of training crops (height, width). `null`: `data.size`."
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.75, 1.5), description="Smallest and largest random scale, relative to `data.size`."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    flip_vertical: float = Field(
        0.0, ge=0, le=1, description="Probability of a vertical flip, for views from above and microscopes."
    )
    color: float = Field(0.3, ge=0, le=1, description="Strength of brightness, contrast and saturation jitter.")
    views: int | None = Field(
        None, gt=0, description="Fixed augmentations per image, shown in turn. `null`: a new augmentation every time."
    )

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("expected the smaller factor first")
        return scale


class Data(Section):
    """The data set, its splits, and the network's input size."""

    format: str = Field(description="Data format (a plugin).")
    options: PluginOptions = Field(PluginOptions(), description="Options of the format.")
    train: str = Field("train", description="Split that trains and calibrates.")
    val: str = Field("val", description="Split that is scored.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="Input size of the networks (height, width).")
    resize: Literal["stretch", "letterbox"] = Field(
        "stretch", description="Resizing to `size`: `stretch` changes the aspect, `letterbox` adds black bars."
    )
    augment: Augment = Field(Augment(), description="Training augmentation.")

    @property
    def format_options(self) -> Any:
        """The format's `Options`; RecipeError when they do not fit."""
        return self.options.typed("formats", self.format, "data.options")


class Train(Section):
    """One training budget. Baseline and distilled student share the student's."""

    steps: int = Field(gt=0, description="Number of optimizer steps.")
    batch_size: int = Field(8, gt=0, description="Images per optimizer step, over all devices.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimizer.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay.")
    schedule: Literal["one_cycle", "poly"] = Field("one_cycle", description="Learning-rate schedule.")
    gradient_clip: float | None = Field(5.0, gt=0, description="Max gradient norm. `null`: no clipping.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of the averaged weights, which then become the result. `null`: no averaging.",
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Segmenters: weight classes by frequency^-class_balance in the task loss (0 off, 1 inverse frequency). "
        "Finds rare classes more often, with more false positives.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto",
        description="Training precision. `auto`: `bf16-mixed` where the hardware computes in bf16, else `32-true`.",
    )
    checkpoint_every: int = Field(100, gt=0, description="Steps between resume checkpoints.")
    validate_every: int | None = Field(
        None,
        gt=0,
        description="Steps between scores on `data.val`, for the learning curve only; they choose nothing. `null`: none.",
    )


class Network(Section):
    """One network."""

    family: str = Field(description="Model family (a plugin).")
    variant: str = Field(description="Variant of the family.")
    options: PluginOptions = Field(PluginOptions(), description="Options of the family.")
    checkpoint: Path | None = Field(
        None, description="Local file with the network's weights. Without `train` the network is used as it is."
    )
    train: Train | None = Field(None, description="Training budget.")


class Teacher(Network):
    """The teacher. It needs `train` (a budget) or `checkpoint` (a file)."""

    floor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Min mIoU or mAP (a fraction) on `data.val`. The run stops when the teacher is below.",
    )

    @model_validator(mode="after")
    def _has_weights(self) -> Teacher:
        if self.checkpoint is None and self.train is None:
            raise ValueError("needs `train` (a budget) or `checkpoint` (a file)")
        return self


class Student(Network):
    """The student. A trained one (`checkpoint` without `train`, `distill.methods: {}`) is deployed as it is."""


class Method(Section):
    """One distillation method: its total weight over the training steps, and its own options."""

    weight: float = Field(1.0, gt=0, description="Weight of the method beside the task loss.")
    warmup: float = Field(0.1, ge=0, le=1, description="Fraction of all steps over which the weight rises from 0.")
    schedule: Literal["constant", "decay"] = Field(
        "constant", description="Weight after the warm-up. `decay`: falls linearly to 0, right after the last step."
    )
    options: PluginOptions = Field(PluginOptions(), description="Options of the method.")

    def typed_options(self, name: str) -> Any:
        """Return the `Options` of the method, whose name is the section's key; RecipeError when they do not fit."""
        return self.options.typed("methods", name, f"distill.methods.{name}.options")

    def weight_at(self, step: int, steps: int) -> float:
        """Return the weight at one of the steps 0 ... steps - 1; a function of the step alone, as a resumed run needs.

        With W = warmup * steps it is weight * min(1, (step + 1) / W), and with `decay` the smaller of that and
        weight * (steps - step) / (steps - W).
        """
        rising = self.warmup * steps
        share = min(1.0, (step + 1) / rising) if rising > 0 else 1.0
        if self.schedule == "decay" and steps > rising:
            share = min(share, (steps - step) / (steps - rising))
        return self.weight * share


class Distill(Section):
    """Methods by name, in any combination. The baseline is the student on the same budget without methods."""

    methods: dict[str, Method] = Field(
        {"dist": Method(), "bckd": Method()},
        description="Settings of each method by its name. Default of segmenters: `dist`, `bckd`. Default of detectors and "
        "instance segmenters: `ld`, and `bckd` with boundary 1 and context 1.",
    )
    baseline: bool = Field(True, description="Train the plain student for comparison.")
    watchdog_ratio: float = Field(
        10.0, gt=0, description="Max ratio of the weighted terms to the task loss. The training stops above."
    )


class Trainer(Section):
    """Where and how Lightning runs. These keys are not in cache keys.

    They change results by rounding only. The exception are several devices: each device has the loss of its own part of a
    batch, and on CPUs its own batch statistics.
    """

    accelerator: str = Field("auto", description="Accelerator, passed to Lightning.")
    devices: int | str = Field("auto", description="Devices, passed to Lightning.")
    num_nodes: int = Field(1, description="Number of machines, passed to Lightning.")
    strategy: str = Field("auto", description="Strategy over several devices, passed to Lightning.")
    workers: int | None = Field(None, ge=0, description="Loader processes. `null`: 0 on the CPU, else 4.")
    channels_last: bool = Field(True, description="Train with the memory format channels_last.")
    compile_teacher: bool = Field(
        False, description="Compile the teacher's forward with torch.compile. Needs a C++ compiler; faster on GPUs."
    )
    teacher_cache: Path | None = Field(
        None, description="Folder that caches the teacher's outputs for all views. Needs `data.augment.views`."
    )


class Export(Section):
    """The ONNX graph, and its parity with torch."""

    opset: int = Field(18, ge=17, description="ONNX opset.")
    input: Literal["float32_nchw", "uint8_nchw", "uint8_nhwc"] = Field(
        "float32_nchw",
        description="Input of the graph. `float32_nchw`: the normalised image. `uint8_*`: the resized image, normalised in "
        "the graph.",
    )
    argmax: bool = Field(False, description="Segmenters: end the graph in the class map instead of the logits.")
    detections: Literal["heads", "boxes", "nms"] = Field(
        "heads", description="Detectors: end the graph in raw `heads`, decoded `boxes`, or the detections after `nms`."
    )
    rewrite: tuple[str, ...] = Field(
        (), description="Exact rewrites of the graph, in order; `edgekd check` names them."
    )
    parity_images: int = Field(8, gt=0, description="Images on which ONNX is compared with torch.")
    logits_tolerance: float = Field(
        1e-3, gt=0, description="Max |torch - ONNX| of an output, relative to its largest value."
    )
    class_map_tolerance: float = Field(
        1e-3, ge=0, description="Segmenters: max fraction of pixels with another class than in torch."
    )
    detections_tolerance: float = Field(
        1e-3,
        ge=0,
        description="Detectors: max fraction of detections without a counterpart in torch (IoU 0.99, score 1e-3).",
    )


PTQ = "ptq"  # the variant of the section itself


class QuantizeVariant(Section):
    """Calibration on a seeded subset of the training split, and the quantizers' options."""

    images: int = Field(128, gt=0, description="Number of calibration images.")
    options: dict[str, PluginOptions] = Field({}, description="Options of each quantizer by its name.")

    def typed_options(self, quantizer: str) -> Any:
        """Return a quantizer's `Options`; RecipeError when they do not fit."""
        given = self.options.get(quantizer, PluginOptions())
        return given.typed("quantizers", quantizer, f"quantize.options.{quantizer}")


class Quantize(QuantizeVariant):
    """Post-training quantization: the settings of variant `ptq`, and further variants beside it.

    Every int8 engine names a variant; those of one quantizer and variant share the quantized model.
    """

    variants: dict[str, QuantizeVariant] = Field(
        {}, description="Further settings by name, e.g. other layers in float."
    )

    @field_validator("variants")
    @classmethod
    def _name_folders(cls, variants: dict[str, QuantizeVariant]) -> dict[str, QuantizeVariant]:
        for name in variants:
            _names_a_folder(name)
            if name == PTQ:
                raise ValueError(f"{PTQ!r} is the variant of the section itself; call this one otherwise")
        return variants

    def variant(self, name: str) -> QuantizeVariant:
        """Return the settings of a variant."""
        return self if name == PTQ else self.variants[name]


LOCAL = "local"  # this machine
_OTHER_ROWS = ("teacher", "student", "distilled", "export", "onnx-fp32")


class Engine(Section):
    """One engine to build, measure and score."""

    id: str = Field(
        "", description="Name of its row and folder. Default: `target-precision`, with `@board` for a named board."
    )
    target: str = Field(description="Target (a plugin).")
    precision: Precision = Field(description="Precision of the engine; the target decides which ones it has.")
    variant: str = Field(
        PTQ, description="Quantized model that an int8 engine is compiled from; see `quantize.variants`."
    )
    board: str = Field(LOCAL, description="Board that runs the engine. `local` is this machine.")
    options: PluginOptions = Field(PluginOptions(), description="Options of the target.")

    @property
    def target_options(self) -> Any:
        """The target's `Options`; RecipeError when they do not fit."""
        return self.options.typed("targets", self.target, f"engines.{self.id}.options")

    @model_validator(mode="before")
    @classmethod
    def _default_id(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("id"):
            return raw
        board = raw.get("board", LOCAL)
        place = "" if board == LOCAL else f"@{board}"
        return {**raw, "id": f"{raw.get('target')}-{raw.get('precision')}{place}"}

    @field_validator("id")
    @classmethod
    def _names_its_row(cls, name: str) -> str:
        if name in _OTHER_ROWS:
            raise ValueError("is the name of another row of the report; call this engine otherwise")
        return _names_a_folder(name)

    @field_validator("board")
    @classmethod
    def _is_local(cls, board: str) -> str:
        if board != LOCAL:
            raise ValueError(f"this edgekd reaches no board but {LOCAL!r}, this machine")
        return board

    @model_validator(mode="after")
    def _has_a_quantized_model(self) -> Engine:
        if self.variant != PTQ and not self.precision.is_quantized:
            raise ValueError(f"variant {self.variant!r} is of a quantized model; precision {self.precision} has none")
        return self


class Bench(Section):
    """Latency measurement per engine and series."""

    min_samples: int = Field(500, gt=0, description="Min measured runs per series.")
    min_seconds: float = Field(3.0, gt=0, description="Min measured time per series, in seconds.")
    warmup_max_seconds: float = Field(5.0, gt=0, description="Max warm-up, in seconds.")
    images: int = Field(16, gt=0, description="Distinct real images in rotation.")


class Evaluate(Section):
    """Scoring on `data.val`."""

    images: int | None = Field(None, gt=0, description="Score only the first N images. `null`: all.")
    pictures: int = Field(6, ge=0, description="Images that the report shows.")
    coco_files: bool = Field(
        False, description="Objects: write labels and detections as COCO's JSON files, to score them with another tool."
    )


PLAIN = "plain"  # the arm without methods


class Study(Section):
    """Arms that `edgekd study` compares, each with every seed. The plain student is always an arm."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2), min_length=1, description="Seeds of every arm."
    )
    arms: dict[str, dict[str, Method]] = Field(
        {}, description="Methods of each arm by its name. Empty: one arm with the methods of `distill.methods`."
    )
    baseline: str = Field(PLAIN, description="Arm that the others are compared with, e.g. the best peer.")

    @field_validator("arms")
    @classmethod
    def _name_folders(cls, arms: dict[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        for name, methods in arms.items():
            _names_a_folder(name)
            if name == PLAIN and methods:
                raise ValueError(f"{PLAIN!r} is the student without methods; call this arm otherwise")
            if name == "teacher":
                raise ValueError("'teacher' has a row of its own in the table; call this arm otherwise")
        return arms

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("expected every seed once")
        return seeds


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
    trainer: Trainer = Field(Trainer(), description="Place of the training: devices, processes, memory.")
    export: Export = Field(Export(), description="ONNX export.")
    quantize: Quantize = Field(Quantize(), description="Calibration of int8 models.")
    engines: tuple[Engine, ...] = Field((), description="Engines to build.")
    check: Literal["stop", "warn"] = Field(
        "stop", description="Reaction to a target that is known to refuse or break the student, before any training."
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

    @field_validator("name")
    @classmethod
    def _names_its_folder(cls, name: str) -> str:
        return _names_a_folder(name)

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
        for name, train in (("teacher", self.teacher.train), ("student", self.student.train)):
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

    @field_validator("engines")
    @classmethod
    def _unique(cls, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        ids = [engine.id for engine in engines]
        twice = {i for i in ids if ids.count(i) > 1}
        if twice:
            raise ValueError(f"two engines have the id {', '.join(sorted(twice))}; give each an `id` of its own")
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

    def only(self, *sections: str) -> Recipe:
        """Return a copy in which every section that is not named is None.

        So a stage cannot read what its cache key does not cover. `engines:<id>` names a single engine, and
        `quantize:<variant>/<quantizer>` the settings of one variant for one quantizer.
        """
        names = {section.partition(":")[0]: section.partition(":")[2] for section in sections}
        update: dict[str, Any] = dict.fromkeys(set(type(self).model_fields) - set(names) - {"name", "task", "seed"})
        if names.get("engines"):
            update["engines"] = tuple(engine for engine in self.engines if engine.id == names["engines"])
        if names.get("quantize"):
            variant, _, quantizer = names["quantize"].partition("/")
            settings = self.quantize.variant(variant)
            options = {quantizer: settings.options.get(quantizer, PluginOptions())}
            update["quantize"] = Quantize(images=settings.images, options=options)
        return self.model_copy(update=update)

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

    def sha256(self) -> str:
        """Return the hash of the recipe's content, defaults included."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def _use(kind: str, name: str, options: PluginOptions, *at: str) -> PluginUse:
    return PluginUse(kind, name, options, at, ".".join(at))


def _methods(methods: dict[str, Method], *at: str) -> Iterator[PluginUse]:
    return (_use("methods", name, method.options, *at, name, "options") for name, method in methods.items())


def _quantizers(settings: QuantizeVariant, *at: str) -> Iterator[PluginUse]:
    return (_use("quantizers", name, options, *at, "options", name) for name, options in settings.options.items())

"""Recipes: what a pipeline is told, in frozen typed sections. They are read from YAML by `core/recipe_loading.py`."""

from __future__ import annotations

import hashlib
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
from edgekd.errors import did_you_mean

Options = dict[str, Any]


class Section(BaseModel):
    """Base of all recipe sections: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _names_a_folder(name: str) -> str:
    if not name.strip() or "/" in name or name.startswith("."):
        raise ValueError("expected a name that can be a folder's: not empty, no '/', no '.' in front")
    return name


class Augment(Section):
    """Training augmentation. `crop` (height, width) defaults to `data.size`; `scale` is relative to `data.size`."""

    crop: tuple[PositiveInt, PositiveInt] | None = None
    scale: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.5)
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    flip_vertical: float = Field(
        0.0, ge=0, le=1, description="probability of a vertical flip: views from above, microscopes"
    )
    color: float = Field(0.3, ge=0, le=1, description="strength of brightness, contrast and saturation jitter")
    views: int | None = Field(
        None, gt=0, description="fixed augmentations per image, shown in turn; by default each time a new one"
    )

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("expected the smaller factor first")
        return scale


class Data(Section):
    """The data set, its splits, and the network's input size (height, width)."""

    format: str
    options: Options = {}
    train: str = "train"
    val: str = "val"
    size: tuple[PositiveInt, PositiveInt]
    resize: Literal["stretch", "letterbox"] = Field(
        "stretch", description="how an image gets to `size`: by changing its aspect, or with black bars beside it"
    )
    augment: Augment = Augment()


class Train(Section):
    """One training budget. Baseline and distilled student share the student's."""

    steps: int = Field(gt=0)
    batch_size: int = Field(8, gt=0, description="images per optimizer step over all devices")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    gradient_clip: float | None = Field(5.0, gt=0, description="largest gradient norm")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights that are kept")
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of segmenters: a pixel counts share^-class_balance in the task loss, by its class's share of the "
        "training split; 0: every pixel alike, 1: every class alike; rare classes are found more often, also where they are not",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the hardware computes in bf16, else 32-true"
    )
    checkpoint_every: int = Field(100, gt=0, description="steps between resume checkpoints")
    validate_every: int | None = Field(
        None, gt=0, description="steps between scores on `data.val`, for the learning curve; nothing is chosen by them"
    )


class Network(Section):
    """One network. `checkpoint` is a local file with its weights; with `train` absent it is used as it is."""

    family: str
    variant: str
    options: Options = {}
    checkpoint: Path | None = None
    train: Train | None = None


class Teacher(Network):
    """The teacher; a run stops when its mIoU or mAP (a fraction) on the scored split is below `floor`."""

    floor: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _has_weights(self) -> Teacher:
        if self.checkpoint is None and self.train is None:
            raise ValueError("needs `train` (a budget) or `checkpoint` (a file)")
        return self


class Student(Network):
    """The student. One that is already trained (`checkpoint` without `train`, `distill.methods: {}`) goes on to the chip."""


class Method(Section):
    """One distillation method: its total weight, how that changes over the training steps, and its own options."""

    weight: float = Field(1.0, gt=0)
    warmup: float = Field(0.1, ge=0, le=1, description="fraction of all steps over which the weight rises from 0")
    schedule: Literal["constant", "decay"] = Field(
        "constant", description="after the warm-up; decay: falls linearly, to reach 0 right after the last step"
    )
    options: Options = {}

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
    """Methods by name, in any combination; the baseline is the student on the same budget without them."""

    methods: dict[str, Method] = Field(
        {"dist": Method(), "bckd": Method()},
        description="the default of segmenters; of detectors and instance segmenters `ld` and `bckd` with boundary 1 and context 1",
    )
    baseline: bool = True
    watchdog_ratio: float = Field(
        10.0, gt=0, description="stop when the weighted terms exceed this times the task loss"
    )


class Trainer(Section):
    """Where and how Lightning runs; passed on to it, and not in cache keys.

    What is learned is the same but for rounding, except on several devices: there each has the loss of its own part of a
    batch, and on CPUs its batch statistics.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    workers: int | None = Field(None, ge=0, description="loader processes; default 0 on CPU, else 4")
    channels_last: bool = Field(True, description="memory format of the networks and the images while training")
    compile_teacher: bool = Field(
        False, description="compile the teacher's forward with torch.compile; needs a C++ compiler, pays on GPUs"
    )
    teacher_cache: Path | None = Field(
        None, description="folder that keeps the teacher's answers to the views; needs `data.augment.views`"
    )


class Export(Section):
    """The ONNX graph. `input` float32_nchw is normalised outside; uint8_* takes the resized image itself."""

    opset: int = Field(18, ge=17)
    input: Literal["float32_nchw", "uint8_nchw", "uint8_nhwc"] = "float32_nchw"
    argmax: bool = False
    detections: Literal["heads", "boxes", "nms"] = Field(
        "heads",
        description="a detector's graph ends in its raw heads, in decoded boxes, or in what NonMaxSuppression keeps",
    )
    rewrite: tuple[str, ...] = Field((), description="exact rewrites of the graph, in order; see edgekd check")
    parity_images: int = Field(8, gt=0)
    logits_tolerance: float = Field(
        1e-3, gt=0, description="largest |torch - ONNX| of an output, relative to its largest value"
    )
    class_map_tolerance: float = Field(
        1e-3, ge=0, description="of a segmenter: largest fraction of pixels that get another class than in torch"
    )
    detections_tolerance: float = Field(
        1e-3,
        ge=0,
        description="of a detector: largest fraction of detections without a counterpart in torch (IoU 0.99, score 1e-3)",
    )


PTQ = "ptq"  # the variant of the section itself


class QuantizeVariant(Section):
    """Calibration on a seeded subset of the *training* split, and the quantizers' options."""

    images: int = Field(128, gt=0, description="calibration images")
    options: dict[str, Options] = Field({}, description="options by quantizer name")


class Quantize(QuantizeVariant):
    """Post-training quantization: the settings of variant `ptq`, and further variants beside it.

    Every int8 engine names a variant; those of one quantizer and variant share the quantized model.
    """

    variants: dict[str, QuantizeVariant] = Field({}, description="further settings by name, e.g. other layers in float")

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
        "", description="name of its row and folder; default `target-precision`, with `@board` when one is named"
    )
    target: str
    precision: Precision
    variant: str = Field(
        PTQ, description="quantized model that an int8 engine is compiled from, see `quantize.variants`"
    )
    board: str = Field(LOCAL, description="machine that it runs on; `local` is this one")
    options: Options = {}

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

    min_samples: int = Field(500, gt=0)
    min_seconds: float = Field(3.0, gt=0)
    warmup_max_seconds: float = Field(5.0, gt=0)
    images: int = Field(16, gt=0, description="distinct real images that are rotated")


class Evaluate(Section):
    """Scoring on `data.val`; `pictures` of it are kept for the report."""

    images: int | None = Field(None, gt=0, description="score only the first N images; all by default")
    pictures: int = Field(6, ge=0)
    coco_files: bool = Field(
        False, description="objects: write labels and detections as COCO's JSON files, to score them with another tool"
    )


PLAIN = "plain"  # the arm without methods


class Study(Section):
    """What `edgekd study` compares: arms of distillation methods by name, each with every seed.

    The plain student is always an arm; without named arms the recipe's own `distill.methods` are the other one.
    """

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((0, 1, 2), min_length=1)
    arms: dict[str, dict[str, Method]] = {}
    baseline: str = Field(PLAIN, description="the arm that the others are compared with, e.g. the best peer")

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


class Recipe(Section):
    """A whole pipeline. `source` is where it was read from."""

    name: str
    task: Literal["semantic", "detection", "instance"] = "semantic"
    seed: int = Field(0, ge=0, lt=2**32)  # what Lightning and numpy take
    data: Data
    teacher: Teacher
    student: Student
    distill: Distill = Distill()
    trainer: Trainer = Trainer()
    export: Export = Export()
    quantize: Quantize = Quantize()
    engines: tuple[Engine, ...] = ()
    check: Literal["stop", "warn"] = Field(
        "stop", description="when a target is known to refuse or to break the student: stop before training, or go on"
    )
    bench: Bench = Bench()
    evaluate: Evaluate = Evaluate()
    study: Study = Study()

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
            options = {quantizer: settings.options.get(quantizer, {})}
            update["quantize"] = Quantize(images=settings.images, options=options)
        return self.model_copy(update=update)

    def sha256(self) -> str:
        """Return the hash of the recipe's content, defaults included."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

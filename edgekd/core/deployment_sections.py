"""Recipe sections for deployment: export, quantized models, engines, their scores and latency."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from edgekd.board.precision import Precision
from edgekd.core import plugins
from edgekd.core.plugin_options import PluginOptions
from edgekd.core.training_sections import Section, differ_in_case_only, names_a_stage


class Export(Section):
    """The ONNX graph, and its parity with torch."""

    opset: int = Field(18, ge=17, description="ONNX opset.")
    input: Literal["float32_nchw", "pixels_nchw", "uint8_nchw", "uint8_nhwc"] = Field(
        "float32_nchw",
        description="Input of the graph. `float32_nchw`: the normalised image. `uint8_*`: the resized image, normalised in "
        "the graph. `pixels_nchw`: the same with pixels as float32 from 0 to 255, for software that feeds float pixels.",
    )
    argmax: bool = Field(False, description="Segmenters: end the graph in the class map instead of the logits.")
    upsampling: Literal["host", "graph"] = Field(
        "host",
        description="Segmenters: where the network's last bilinear upsampling of the logits is computed. `host`: the graph ends "
        "before it, and making the class map includes it; the result is the same. `graph`: in the graph.",
    )
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


PTQ = "ptq"  # name of the variant that the section itself describes


class QuantizeVariant(Section):
    """Calibration on a seeded subset of the training split, and the quantizers' options."""

    images: int = Field(128, gt=0, description="Number of calibration images.")
    adjust: tuple[Literal["equalize", "equalize_relu6", "round", "bias"], ...] | None = Field(
        None,
        description="Changes of the float graph before it is quantized, in order. `null`: `round` for the quantizer `qdq`, "
        "none for the others. `equalize`: makes the ranges of a convolution's channels similar, without a change of its results. "
        "`equalize_relu6`: also across a ReLU6, with a Min that some runtimes compute in float. `round`: rounds weights so that "
        "the layer's output changes least. `bias`: corrects biases, so that quantization does not shift a channel's mean.",
    )
    options: dict[str, PluginOptions] = Field({}, description="Options of each quantizer by its name.")

    def adjustments(self, quantizer: str) -> tuple[str, ...]:
        """Return the adjustments for a quantizer: those of the recipe, or the quantizer's default if `adjust` is null."""
        own = getattr(plugins.load("quantizers", quantizer), "ADJUST", ())
        return tuple(own) if self.adjust is None else self.adjust

    def typed_options(self, quantizer: str) -> Any:
        """Return a quantizer's `Options`; RecipeError when they do not fit."""
        given = self.options.get(quantizer, PluginOptions())
        return given.typed("quantizers", quantizer, f"quantize.options.{quantizer}")


class Budget(Section):
    """Accuracy budget of quantized engines: the largest drop of a metric against the float network."""

    max_drop: float = Field(0.005, gt=0, lt=1, description="Max drop of the metric, a fraction: 0.005 is half a point.")
    metric: str | None = Field(
        None,
        description="Metric that the budget limits: `miou` or `boundary_iou`; detection: `map` or `map_75`; instances: `mask_map` "
        "or `boundary_map`. `null`: the first one of the task.",
    )
    images: int = Field(
        256,
        gt=0,
        description="Max number of selection images: training images that calibration does not use. The budget is checked on them, "
        "not on `data.val`.",
    )
    rank: str = Field("alone_sqnr", description="Ranking (a plugin) that orders the layers for the search.")


class Quantize(QuantizeVariant):
    """Post-training quantization: the settings of variant `ptq`, and further variants beside it.

    Every int8 engine names a variant; those of one quantizer and variant share the quantized model.
    """

    variants: dict[str, QuantizeVariant] = Field(
        {}, description="Further settings by name, e.g. other layers in float."
    )
    budget: Budget | None = Field(
        None,
        description="Accuracy budget, for engines of precision `mixed` and for `qat.when: over_budget`. `null`: none.",
    )
    _boards: tuple[str, ...] = PrivateAttr(())

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards of the engines that are compiled from the quantized model; `Recipe.only` tells it, others know none."""
        return self._boards

    def on(self, boards: tuple[str, ...]) -> Quantize:
        """Return the same settings of a model whose engines run on these boards."""
        known = self.model_copy()
        known._boards = boards
        return known

    @field_validator("variants")
    @classmethod
    def _name_folders(cls, variants: dict[str, QuantizeVariant]) -> dict[str, QuantizeVariant]:
        for name in variants:
            names_a_stage(name)
            if name.casefold() == PTQ:
                raise ValueError(f"{PTQ!r} is the variant of the section itself; rename this one")
        if alike := differ_in_case_only(variants):
            raise ValueError(f"{alike} differ only in case; rename one of them")
        return variants

    def variant(self, name: str) -> QuantizeVariant:
        """Return the settings of a variant."""
        return self if name == PTQ else self.variants[name]


class EngineParity(Section):
    """Limits for each engine: on its board against its unoptimised ONNX graph, and against the same file on this machine."""

    images: int = Field(4, gt=0, description="Training images on which each engine is compared with its graph.")
    fp32_error: float = Field(
        1e-4, gt=0, description="fp32 engines: max |engine - graph| of an output, relative to its spread (max - min)."
    )
    fp16_error: float = Field(0.02, gt=0, description="The same for fp16 engines.")
    int8_error: float = Field(
        0.5,
        gt=0,
        description="int8 engines: max RMS of |engine - graph| of an output, relative to its standard deviation; against the "
        "float graph, and against the quantized one.",
    )
    fp32_different: float = Field(
        1e-3,
        ge=0,
        description="fp32 engines: max fraction of pixels with another class, or of detections without a counterpart (IoU "
        "0.99, score 1e-3).",
    )
    fp16_different: float = Field(0.02, ge=0, description="The same for fp16 engines (IoU 0.9, score 0.01).")
    int8_different: float = Field(0.5, ge=0, description="The same for int8 engines (IoU 0.5, score 0.1).")
    board_error: float = Field(
        0.05,
        gt=0,
        description="The same engine file on its board and here, or in the simulator of its chip: max RMS of the difference of "
        "an output, relative to its standard deviation.",
    )
    board_different: float = Field(
        0.02,
        ge=0,
        description="The same engine file on its board and here, or in the simulator: max fraction of pixels with another class, "
        "or of detections without a counterpart.",
    )
    board_score: float = Field(
        0.01,
        ge=0,
        description="The same engine file on its board and here: max difference of mIoU or mAP on `data.val`, a fraction.",
    )


class Layers(Section):
    """The error of each int8 engine layer by layer, as `edgekd layers` measures it."""

    images: int = Field(
        0, ge=0, description="Training images that are compared. 0: not measured. `edgekd layers` uses 8."
    )


LOCAL = "local"  # this machine
DEPLOYED: Final = "deployed"  # the distilled student, or the plain one without methods
_OTHER_ROWS = ("teacher", "student", "distilled", "qat", "control", "export", "onnx-fp32")
_PICTURE_KEYS = ("name", "image", "truth")  # of `pictures.npz`, beside the rows'


class Engine(Section):
    """One engine to build, measure and score."""

    id: str = Field(
        "",
        description="Name of its row and folder. Default: `target-precision`, with `-qat` or `-control` for another student, and "
        "`@board` for a named board.",
    )
    target: str = Field(description="Target (a plugin).")
    precision: Precision = Field(description="Precision of the engine; the target decides which ones it has.")
    variant: str = Field(
        PTQ, description="Quantized model that an int8 engine is compiled from; see `quantize.variants`."
    )
    student: Literal["deployed", "qat", "control"] = Field(
        DEPLOYED,
        description="Student of the engine. `deployed`: the distilled one, or the plain one if there are no distillation methods. "
        "`qat`, `control`: the ones that section `qat` trains.",
    )
    board: str = Field(
        LOCAL,
        description="Board of the inventory that runs the engine; a list makes one engine for each. `local` is this machine.",
    )
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
        student = raw.get("student", DEPLOYED)
        of = "" if student == DEPLOYED else f"-{student}"
        return {**raw, "id": f"{raw.get('target')}-{raw.get('precision')}{of}{place}"}

    @field_validator("id")
    @classmethod
    def _names_its_row(cls, name: str) -> str:
        if name.casefold() in _OTHER_ROWS:
            raise ValueError("is the id of another row of the report; rename the engine")
        if name.casefold() in _PICTURE_KEYS:
            raise ValueError("is a name that the report's pictures use; rename the engine")
        return names_a_stage(name)

    @model_validator(mode="after")
    def _has_a_quantized_model(self) -> Engine:
        if self.variant != PTQ and not self.precision.is_quantized:
            raise ValueError(f"variant {self.variant!r} is of a quantized model; precision {self.precision} has none")
        return self


def on_boards(engine: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a recipe's engine (YAML) once for each board in its list; an explicit id gets the suffix `@board`.

    Raises:
        ValueError: the list is empty, has a value that is not a name, or has a name twice.
    """
    boards = engine.get("board", LOCAL)
    if not isinstance(boards, list):
        return [engine]
    if not boards or not all(isinstance(name, str) for name in boards) or len(set(boards)) < len(boards):
        raise ValueError(f"engines: board: expected a name, or a list of different names, got {boards}")
    own = engine.get("id")
    return [{**engine, "board": name, **({"id": f"{own}@{name}"} if own and name != LOCAL else {})} for name in boards]


class Bench(Section):
    """Latency measurement per engine and series."""

    min_samples: int = Field(500, gt=0, description="Min measured runs per series.")
    min_seconds: float = Field(3.0, gt=0, description="Min measured time per series, in seconds.")
    warmup_max_seconds: float = Field(5.0, gt=0, description="Max warm-up, in seconds.")
    images: int = Field(16, gt=0, description="Distinct real images in rotation.")
    energy_seconds: float = Field(
        0.0,
        ge=0,
        description="Energy per frame: seconds of each stretch, idle, busy and idle again, for each engine. 0: not measured. "
        "30 gives a power sensor 150 values.",
    )
    sustained_seconds: float = Field(
        0.0,
        ge=0,
        description="Sustained latency: seconds in which each engine runs back to back, beside clocks and temperatures. 0: not "
        "measured. MLPerf runs 600.",
    )
    cool_down_seconds: float = Field(
        300.0, ge=0, description="Longest wait for the start temperature before each sustained run, in seconds."
    )
    sensor_hz: float = Field(
        5.0, gt=0, le=10, description="Sensor values a second during the energy and the sustained runs."
    )


class Evaluate(Section):
    """Scoring on `data.val`."""

    images: int | None = Field(None, gt=0, description="Score only the first N images. `null`: all.")
    pictures: int = Field(6, ge=0, description="Images that the report shows.")
    max_detections: int = Field(
        100, gt=0, description="Objects: max detections per image that are scored, the best ones. COCO's is 100."
    )
    coco_files: bool = Field(
        False, description="Objects: write labels and detections as COCO's JSON files, to score them with another tool."
    )

"""Schema of `report.json`: the collector builds these models, the table, the verdict, the charts and the page read them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgekd.board.precision import Precision
from edgekd.core.task_metrics import TASKS
from edgekd.report.engine_layers import EngineLayers
from edgekd.report.latency import Footprint, Latency, SpeedRatio
from edgekd.report.long_runs import EnergyPerFrame, SamplingCost, SustainedLatency
from edgekd.report.mixed_budget import MixedBudget
from edgekd.report.part import Json, Number, Part, TaskName
from edgekd.report.score_change import ScoreChange
from edgekd.report.training import Training

SCHEMA: Final = "edgekd.report/1"
_QUANTIZED = [str(precision) for precision in Precision if precision.is_quantized]
Status = Literal["measured", "not measured", "failed"]


class BestF1(Part):
    """Point of one class where precision and recall at IoU 0.5 are best together, fractions."""

    f1: Number = None
    precision: Number = None
    recall: Number = None
    score: Number = None


class Calibration(Part):
    """Images of the int8 calibration; the quantize artifact has their names."""

    split: str
    count: int
    seed: int | None = None


class DataFinding(Part):
    """One thing that looks wrong with the data set; `text` is a line for a reader."""

    code: str = Field(description="kind, e.g. `palette_order`")
    text: str = Field(description="one line with the count and the first file")
    count: int = Field(1, description="number of images, objects or classes")
    first: str = Field("", description="first of these images or classes")


class GraphParity(Part):
    """Parity of an engine with one ONNX graph, evaluated without optimisation, on training images."""

    images: int = 0
    max_error: Number = None
    rms_error: Number = None
    different: Number = None
    compared: int = 0


class Row(Part):
    """One network or engine, and the measurements of it."""

    task: str = Field("semantic", exclude=True)  # the report's
    id: str = Field(
        description="`teacher`, `student`, `distilled`, `control`, `qat`, `onnx-fp32`, or the engine's id (default "
        "`<target>-<precision>`)"
    )
    stage: str = Field("", description="`teacher`, `student`, `distilled`, `control`, `qat`, `onnx` or `engine`")
    method: str = Field("", description="distillation methods joined by `+`, or `none`")
    target: str = Field("", description="runtime, e.g. `openvino`; `torch` for networks")
    precision: str = Field("", description="precision, e.g. `int8`")
    board: str = Field("", description="machine that runs it; `local` is this one")
    student: str = Field(
        "deployed",
        description="engines: student that it was made of, `deployed` or one of section `qat`: `control`, `qat`",
    )
    status: Status = Field(
        "not measured",
        description="`measured` (scored, or only timed: reason `not scored`), `not measured`, or `failed` "
        "(compiling, scoring or timing it failed, or the run ended before)",
    )
    reason: str = Field("", description="one line: why the row is not measured, or failed")
    size_bytes: int | None = Field(None, description="size of the deployed file")
    sha256: str = Field("", description="hash of the deployed file")
    params: int | None = Field(None, description="parameters")
    macs: int | None = Field(None, description="multiply-adds of one image")
    calibration: Calibration | None = Field(
        None, description="engines of a quantized model: split, number of images and seed of its calibration"
    )
    budget: MixedBudget | None = Field(None, description="mixed engines: layers in float and drops, see below")
    parity: dict[str, GraphParity] = Field(
        {},
        description="engines that ran on their board, by what they are compared with: the ONNX graphs `float` (the export) and "
        "`quantized` (the Q/DQ graph, where there is one); the same engine `here`, for one of another board, and in the "
        "`simulator` of its chip. `max_error`: largest difference of an output over its spread; `rms_error`: RMS "
        "difference over the standard deviation; `different`: fraction of `compared` pixels or detections that differ",
    )
    latency_ms: Latency | None = Field(
        None,
        description="engine time: `p50`, `p90`, `p95`, `p99`, `mean`, `std`, `min`, `max` in milliseconds, `n` runs; a "
        "percentile that the runs cannot carry is absent",
    )
    wall_ms: Latency | None = Field(None, description="wall time from image to result, the same keys")
    stages_ms: dict[str, Latency] = Field(
        {},
        description="the wall time by stage: `prepare`, `engine`, `result` (class map, boxes or masks), and before them `decode` "
        "where the data set has image files; the same keys",
    )
    sums_ms: dict[str, Number] = Field(
        {}, description="median of whole ways: `array_in`, the wall time, and `file_in`, the median of `decode` more"
    )
    footprint: Footprint | None = Field(
        None,
        description="a process that opens this engine alone and runs it: `load_ms` (file to a session that is ready, runtime "
        "imported before), `first_ms` (first run), `base_bytes` and `peak_bytes` (resident memory before loading, and the highest)",
    )
    throughput_fps: Number = Field(None, description="1 over the mean engine time")
    stream_fps: Number = Field(
        None, description="images per second from array to result, the stages of several images at work together"
    )
    speed: SpeedRatio | None = Field(
        None, description="speed relative to the fp32 engine of its target (fp16 where it has none), see below"
    )
    runtime: Json = Field({}, description="the session's own facts: `runtime`, `version`, `threads`, device, precision")
    warnings: list[str] = Field([], description="reasons to doubt the latency")
    energy: EnergyPerFrame | None = Field(
        None, description="energy per frame (`bench.energy_seconds`), see below; null where it was not asked for"
    )
    sustained: SustainedLatency | None = Field(
        None, description="sustained latency (`bench.sustained_seconds`), see below; null where it was not asked for"
    )
    sampling: SamplingCost | None = Field(None, description="cost of reading sensors beside `energy` and `sustained`")
    metrics: dict[str, Number] = Field({}, description="name -> fraction, see [metrics](metrics.md)")
    gain: ScoreChange | None = Field(
        None,
        description="engines of section `qat`: change of the primary metric against the same engine of the simpler student, which is "
        "the `control` for `qat`, and the `deployed` one for `control`; see below",
    )
    ceilings: dict[str, Number] = Field(
        {},
        description="objects: highest value of a metric, that of perfect labels, where images hold more objects than "
        "`evaluate.max_detections`",
    )
    iou_per_class: dict[str, Number] = Field(
        {}, description="semantic: IoU by class; null for a class that never occurs"
    )
    ap_per_class: dict[str, Number] = Field({}, description="objects: average precision by class")
    best_f1: dict[str, BestF1] = Field(
        {},
        description="objects, by class: `f1`, `precision`, `recall` at IoU 0.5 and the `score` threshold, where F1 is best",
    )
    precision_at_recall: dict[str, list[float]] = Field(
        {}, description="objects, by class: precision at IoU 0.5 at 101 recalls from 0 to 1"
    )
    num_images: int | None = Field(None, description="images scored")
    images_sha256: str = Field("", description="hash of the scored images and their labels, in order")
    absent_classes: list[str] = Field([], description="classes left out of the means: they never occur")

    @property
    def is_measured(self) -> bool:
        """Whether the row was measured, and no stage of it failed."""
        return self.status == "measured"

    @property
    def score(self) -> float | None:
        """Primary metric of the task as a fraction, e.g. mIoU."""
        return self.metrics.get(TASKS[self.task].metric)

    @property
    def score_title(self) -> str:
        """Title of the primary metric."""
        return TASKS[self.task].title

    @property
    def ceiling(self) -> float | None:
        """Highest value of the primary metric, None where it is 1."""
        return self.ceilings.get(TASKS[self.task].metric)

    @property
    def second(self) -> float | None:
        """Secondary metric of the task as a fraction, e.g. boundary IoU."""
        return self.metrics.get(TASKS[self.task].second)

    @property
    def second_title(self) -> str:
        """Title of the secondary metric."""
        return TASKS[self.task].second_title

    @property
    def per_class(self) -> dict[str, Number]:
        """IoU or average precision by class."""
        return self.iou_per_class or self.ap_per_class

    @property
    def p50_ms(self) -> float | None:
        """Median engine time."""
        return self.latency_ms.p50 if self.latency_ms else None

    @property
    def is_quiet(self) -> bool:
        """Whether the bench has no reason to doubt the latency."""
        return not self.warnings

    @property
    def same_share(self) -> float | None:
        """Fraction of the pixels or detections that are those of the float graph; None for rows that were not compared."""
        parity = self.parity.get("float")
        return 1 - parity.different if parity and parity.compared and parity.different is not None else None

    @property
    def is_quantized(self) -> bool:
        """Whether this is an engine of a quantized model."""
        return self.stage == "engine" and self.precision in _QUANTIZED

    @property
    def branch(self) -> tuple[str, str]:
        """Target and board: rows that agree in both run in the same runtime on the same machine."""
        return (self.target, self.board)

    @property
    def has_default_id(self) -> bool:
        """Whether an engine's id only repeats target, precision, student and board."""
        own = f"{self.target}-{self.precision}" + ("" if self.student == "deployed" else f"-{self.student}")
        return self.id in (own, f"{own}@{self.board}")

    @property
    def runtime_label(self) -> str:
        """Target, and the board unless it is this machine: `openvino`, `rknn on rock5`."""
        return self.target + ("" if self.board in ("", "local") else f" on {self.board}")

    @property
    def label(self) -> str:
        """The id, and for an engine whose id does not say them, its target and precision: `lean (openvino int8)`."""
        student = "" if self.student == "deployed" else f" {self.student}"
        described = f"{self.target} {self.precision}{student}{self.runtime_label.removeprefix(self.target)}".strip()
        return self.id if self.stage != "engine" or self.has_default_id or not described else f"{self.id} ({described})"


class Definition(Part):
    """Meaning of one number."""

    title: str = ""
    text: str = ""
    higher_is_better: bool | None = None


class BoardMachine(Part):
    """The machine of a board, as it was when its engines were measured or scored."""

    hardware: Json = Field({}, description="what engines that belong to one machine belong to: processor, system, chip")
    use: Json = Field({}, description="what latencies depend on besides: cores, power mode, hash of the machine's id")
    runtimes: Json = Field({}, description="runtimes by distribution; null for one that is not installed")
    environment: Json = Field({}, description="as the report's `environment`, without packages")
    state: Json = Field(
        {}, description="clocks, temperatures, power, counters, load and memory `before` and `after` the board's bench"
    )


class StageTiming(Part):
    """Time of one stage."""

    name: str
    seconds: float
    skipped: bool


class Gate(Part):
    """One limit of the recipe and the measured value."""

    name: str
    passed: bool
    text: str


class Report(Part):
    """Everything that a run measured, with its recipe and its environment."""

    schema_: Literal["edgekd.report/1"] = Field(alias="schema", description=f"`{SCHEMA}`")
    artifact_schema: str = Field("", description="schema of the [artifacts](artifacts.md) behind the report")
    title: str = Field("", description="recipe, student and number of engines in one line")
    recipe_name: str = Field("", description="name of the recipe")
    task: TaskName = Field("semantic", description="`semantic`, `detection` or `instance`")
    seed: int | None = Field(None, description="seed of the run")
    recipe_sha256: str = Field("", description="hash of the recipe")
    recipe: Json = Field({}, description="the whole recipe with defaults and overrides")
    created: str = Field("", description="time of the report, ISO 8601")
    classes: list[str] = Field([], description="class names in index order")
    environment: Json = Field(
        {},
        description="processor and its instruction sets, cores, memory, system, Python; package versions under `packages`",
    )
    boards: dict[str, BoardMachine] = Field(
        {}, description="machines of the engines by board, see below; `local` is this machine"
    )
    rows: list[Row] = Field([], description="one per network and engine, see below")
    definitions: dict[str, Definition] = Field(
        {}, description="title, definition and direction of each [metric](metrics.md)"
    )
    stages: list[StageTiming] = Field([], description="name, seconds and `skipped` of each stage of this run")
    training: dict[str, Training] = Field(
        {}, description="by `teacher`, `student`, `distilled`, `control`, `qat`, see below"
    )
    gates: list[Gate] = Field([], description="limits of the recipe: name, passed, text")
    calibration: Calibration | None = Field(
        None, description="split, number of images and seed of the int8 calibration"
    )
    repairs: dict[str, dict[str, int]] = Field(
        {}, description="objects, by split: repairs of labels and their number, e.g. `boxes without area left out`"
    )
    layers: dict[str, EngineLayers] = Field(
        {}, description="error layer by layer, by engine (`layers.images`), see below"
    )
    findings: list[DataFinding] = Field([], description="warnings about the data set, see below")
    failure: str = Field("", description="the line with which the run ended early, or empty")

    @field_validator("rows")  # after `task`, which stands above it
    @classmethod
    def _rows_have_the_task(cls, rows: list[Row], info: ValidationInfo) -> list[Row]:
        return [row.model_copy(update={"task": info.data.get("task", row.task)}) for row in rows]

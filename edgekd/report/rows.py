"""The rows of report.json as values: read once, with every missing or non-finite number as None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.core.task_metrics import TASKS

PERCENTILES = ("p50", "p90", "p99")
_STAGE_LABELS = {
    "teacher": "Teacher",
    "student": "Baseline student",
    "distilled": "Distilled student",
    "qat": "QAT student",
    "onnx": "ONNX",
}


@dataclass(frozen=True)
class Latency:
    """Summary of one latency distribution in milliseconds; a percentile that was suppressed is None. `n` counts runs."""

    p50: float | None
    p90: float | None
    p99: float | None
    mean: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One row of the report: a network or an engine, and what was measured on it.

    `metrics` and `per_class` (IoU, or average precision) hold fractions in [0, 1]; a class that never occurred is None.
    `precision_at_recall` is the precision at IoU 0.5 of each class at evenly spaced recalls from 0 to 1; objects only.
    `best_f1` is where precision and recall are best together, by class: `f1`, `precision`, `recall`, `score`.
    `warnings` are the bench's own remarks about its timing (drift, spread, no steady state), `runtime` what the session said
    of itself (version, threads, device).
    """

    id: str
    stage: str
    method: str
    target: str
    board: str
    precision: str
    status: str
    reason: str
    metrics: dict[str, float]
    per_class: dict[str, float | None]
    num_images: int | None
    latency: Latency | None
    wall: Latency | None
    throughput_fps: float | None
    size_bytes: float | None
    params: float | None
    macs: float | None
    sha256: str
    warnings: tuple[str, ...]
    runtime: dict[str, Any]
    precision_at_recall: dict[str, list[float]]
    best_f1: dict[str, dict[str, float]]
    task: str = "semantic"

    @property
    def is_measured(self) -> bool:
        """Whether the row carries measurements at all."""
        return self.status == "measured"

    @property
    def score(self) -> float | None:
        """The task's first metric as a fraction, e.g. mean IoU."""
        return self.metrics.get(TASKS[self.task].metric)

    @property
    def score_title(self) -> str:
        """What that metric is called."""
        return TASKS[self.task].title

    @property
    def second(self) -> float | None:
        """The metric shown beside it as a fraction, e.g. boundary IoU."""
        return self.metrics.get(TASKS[self.task].second)

    @property
    def p50_ms(self) -> float | None:
        """Median engine latency."""
        return self.latency.p50 if self.latency else None

    @property
    def place(self) -> tuple[str, str]:
        """Target and board: rows that agree in both come from the same runtime on the same machine."""
        return (self.target, self.board)

    @property
    def label(self) -> str:
        """What a reader calls the row, e.g. `Baseline student` or `openvino int8`."""
        if self.stage == "engine":
            where = f" on {self.board}" if self.board not in ("", "local") else ""
            return f"{self.target} {self.precision}{where}".strip() or self.id
        return _STAGE_LABELS.get(self.stage, self.id)


def read_rows(rows: Sequence[Mapping[str, Any]], task: str = "semantic") -> list[Row]:
    """Return the rows of `report["rows"]`, in their order."""
    return [_row(data, task) for data in rows]


def reference_of(rows: Sequence[Row], place: tuple[str, str]) -> Row | None:
    """Return the engine with which the others of a target and board are compared: fp32, or fp16 where that is all there is.

    RKNN and OpenVINO's NPU have no fp32.
    """
    engines = {row.precision: row for row in reversed(rows) if row.stage == "engine" and row.place == place}
    return next((engines[precision] for precision in ("fp32", "fp16") if precision in engines), None)


def number(value: object) -> float | None:
    """Return a finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _row(data: Mapping[str, Any], task: str) -> Row:
    measured = {name: number(value) for name, value in (data.get("metrics") or {}).items()}
    images = number(data.get("num_images"))
    return Row(
        id=str(data["id"]),
        stage=str(data.get("stage") or ""),
        method=str(data.get("method") or ""),
        target=str(data.get("target") or ""),
        board=str(data.get("board") or ""),
        precision=str(data.get("precision") or ""),
        status=str(data.get("status") or "not measured"),
        reason=str(data.get("reason") or ""),
        metrics={name: value for name, value in measured.items() if value is not None},
        per_class={
            str(name): number(value)
            for name, value in (data.get("iou_per_class") or data.get("ap_per_class") or {}).items()
        },
        num_images=int(images) if images else None,
        latency=_latency(data.get("latency_ms")),
        wall=_latency(data.get("wall_ms")),
        throughput_fps=number(data.get("throughput_fps")),
        size_bytes=number(data.get("size_bytes")),
        params=number(data.get("params")),
        macs=number(data.get("macs")),
        sha256=str(data.get("sha256") or ""),
        warnings=tuple(map(str, data.get("warnings") or ())),
        runtime=dict(data.get("runtime") or {}),
        precision_at_recall={
            str(name): [number(value) or 0.0 for value in values]
            for name, values in (data.get("precision_at_recall") or {}).items()
        },
        best_f1={
            str(name): {key: number(point.get(key)) or 0.0 for key in ("f1", "precision", "recall", "score")}
            for name, point in (data.get("best_f1") or {}).items()
        },
        task=task,
    )


def _latency(data: Mapping[str, Any] | None) -> Latency | None:
    if not data:
        return None
    p50, p90, p99 = (number(data.get(name)) for name in PERCENTILES)
    return Latency(p50, p90, p99, number(data.get("mean")), int(number(data.get("n")) or 0))

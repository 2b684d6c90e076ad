"""Reads a stored `report.json`, which somebody may have changed: the parts that are printed or drawn are checked first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from edgekd.core.task_metrics import TASKS
from edgekd.errors import UserError
from edgekd.report.collect import REPORT, SCHEMA

_Numbers = dict[str, float | None] | None


class _Row(BaseModel):
    id: str
    stage: str = ""
    status: str = ""
    reason: str = ""
    metrics: _Numbers = None
    iou_per_class: _Numbers = None
    ap_per_class: _Numbers = None
    latency_ms: _Numbers = None
    wall_ms: _Numbers = None
    warnings: list[str] | None = None
    runtime: dict[str, Any] | None = None
    precision_at_recall: dict[str, list[float]] | None = None
    best_f1: dict[str, dict[str, float | None]] | None = None


class _Gate(BaseModel):
    name: str
    passed: bool
    text: str


class _Timing(BaseModel):
    name: str
    seconds: float
    skipped: bool


class _Method(BaseModel):
    weight: float


class _Training(BaseModel):
    methods: dict[str, _Method] | None = None
    curve: list[tuple[float, float]] | None = None
    validation: list[tuple[float, float]] | None = None


class _Calibration(BaseModel):
    split: str
    count: int


class _Report(BaseModel):
    task: str = "semantic"
    title: str | None = None
    recipe_name: str | None = None
    created: str | None = None
    recipe_sha256: str | None = None
    failure: str | None = None
    classes: list[str] | None = None
    rows: list[_Row] | None = None
    gates: list[_Gate] | None = None
    stages: list[_Timing] | None = None
    training: dict[str, _Training] | None = None
    calibration: _Calibration | None = None
    definitions: dict[str, dict[str, Any]] | None = None
    repairs: dict[str, dict[str, int]] | None = None
    environment: dict[str, Any] | None = None

    @field_validator("task")
    @classmethod
    def _is_known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"expected {', '.join(TASKS)}")
        return task


def read_report(path: Path) -> dict[str, Any]:
    """Read a report from a `report.json` or from the folder that holds one.

    Raises:
        UserError: not there, or not a report.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
        report = json.loads(text)
    except FileNotFoundError as exc:
        is_run = path.is_dir() and any((path / name / "manifest.json").is_file() for name in ("data", "teacher"))
        hint = "the run has not ended; start it again to go on" if is_run else "give the folder of an edgekd run"
        raise UserError(f"{file}: no such file; {hint}") from exc
    except (OSError, ValueError) as exc:
        raise UserError(f"{file}: not a readable {REPORT} ({exc}); give the folder of an edgekd run") from exc
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UserError(f"{file}: expected a report with schema {SCHEMA}")
    try:
        _Report.model_validate_json(text, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {where}: {first['msg']}; run the recipe again to write the report anew") from exc
    return report

"""The gain of distillation with its interval, from a study (`study.json`) of the same task, methods and budget.

A file contract: the package `study` stands above this one and is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from edgekd.core.task_metrics import TASKS
from edgekd.report.model import Report
from edgekd.report.part import Json, Number, Part
from edgekd.report.stored import read_file
from edgekd.report.training import TrainedMethod

STUDY, SCHEMA = "study.json", "edgekd.study/1"


class _Difference(Part):
    mean: Number = None
    low: Number = None
    high: Number = None


class _Summary(Part):
    n: int = 0
    difference: _Difference | None = None


class _Arm(Part):
    name: str
    methods: dict[str, TrainedMethod] = Field({})
    metrics: dict[str, _Summary] = Field({})


class _Study(Part):
    recipe: Json = Field({})
    baseline: str = ""
    steps: int | None = None
    arms: list[_Arm] = Field([])


@dataclass(frozen=True)
class StudyInterval:
    """Gain of the report's methods over the plain student, fractions: mean over `seeds` seeds and its 95 % interval."""

    seeds: int
    mean: float
    low: float
    high: float


def study_interval(report: Report, folder: Path) -> StudyInterval | None:
    """Return the interval of a study in the run's folder or in one of the two above it; None without one that fits.

    A study fits when it has an arm of the report's methods and weights, compared with the plain student, on the same
    task, with as many steps.

    Args:
        report: the report.
        folder: folder of the run.

    Raises:
        UserError: a `study.json` that cannot be read.
    """
    resolved = folder.resolve()
    file = next((place / STUDY for place in (resolved, *resolved.parents[:2]) if (place / STUDY).is_file()), None)
    if file is None:
        return None
    study = read_file(file, _Study, SCHEMA, "study")
    training = report.training.get("distilled")
    is_quantized = (study.recipe.get("study") or {}).get("quantized") is not None  # its arms are engines
    if training is None or is_quantized or study.recipe.get("task") != report.task or study.steps != training.steps:
        return None
    wanted = {name: method.weight for name, method in training.methods.items()}
    plain = {arm.name for arm in study.arms if not arm.methods}
    arm = next((arm for arm in study.arms if {name: m.weight for name, m in arm.methods.items()} == wanted), None)
    if arm is None or not wanted or study.baseline not in plain:
        return None
    summary = arm.metrics.get(TASKS[report.task].metric)
    found = summary.difference if summary else None
    if summary is None or found is None or found.mean is None or found.low is None or found.high is None:
        return None
    return StudyInterval(summary.n, found.mean, found.low, found.high)

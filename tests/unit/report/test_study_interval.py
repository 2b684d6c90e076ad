"""The interval of a study beside a run: taken where methods, weights, steps and task are the run's, else left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import UserError
from edgekd.report.model import Report
from edgekd.report.study_interval import StudyInterval, study_interval
from edgekd.report.training import TrainedMethod, Training


def report(weight: float = 1.0, steps: int = 400, task: str = "semantic") -> Report:
    methods = {"dist": TrainedMethod(weight=weight)}
    return Report(schema="edgekd.report/1", task=task, training={"distilled": Training(steps=steps, methods=methods)})


def study(low: float | None = 0.003) -> dict[str, Any]:
    difference = {"by_seed": [0.01, 0.02], "mean": 0.015, "low": low, "high": 0.027, "verdict": "better"}
    arms = [
        {"name": "none", "methods": {}},
        {
            "name": "dist",
            "methods": {"dist": {"weight": 1.0}},
            "metrics": {"miou": {"mean": 0.6, "n": 5, "difference": difference}},
        },
    ]
    return {
        "schema": "edgekd.study/1", "recipe": {"task": "semantic"}, "baseline": "none", "steps": 400, "arms": arms,
    }  # fmt: skip


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "study.json").write_text(json.dumps(content))
    return folder


def test_the_study_beside_or_above_the_run_is_read(tmp_path: Path) -> None:
    run = written(tmp_path, study()) / "runs" / "dist-seed0"
    run.mkdir(parents=True)
    expected = StudyInterval(5, 0.015, 0.003, 0.027)
    assert study_interval(report(), run) == study_interval(report(), tmp_path) == expected
    assert study_interval(report(), tmp_path / "a" / "b" / "c") is None  # too far below


@pytest.mark.parametrize("other", [report(weight=2.0), report(steps=300), report(task="detection")])
def test_a_study_of_other_methods_steps_or_task_is_left_out(other: Report, tmp_path: Path) -> None:
    assert study_interval(other, written(tmp_path, study())) is None


def test_one_seed_has_no_interval_and_a_comparison_with_another_arm_is_no_gain(tmp_path: Path) -> None:
    assert study_interval(report(), written(tmp_path, study(low=None))) is None
    assert study_interval(report(), written(tmp_path, study() | {"baseline": "dist"})) is None


def test_a_study_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="study.json: not a readable"):
        study_interval(report(), tmp_path)

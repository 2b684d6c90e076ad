"""Engines of a study that fail alone: the other scores count, and nothing is repeated until the user asks for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekd import planning
from edgekd.pipeline import StageRun
from edgekd.study.failed_engines import FILE, forget
from edgekd.study.plan import StudyRun
from edgekd.study.results import NoResult
from edgekd.study.work import LOG, ended, finished, outcome
from tests.unit.study.test_quantized import recipe_of, runs_of
from tests.unit.study.test_study import Details

REASON = "quantize/nncf-ptq-control failed: not enough memory"
LOST = NoResult("failed", REASON)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRun:
    """A run of the arm `control` that has everything but what follows NNCF's quantization."""
    run = runs_of(recipe_of(tmp_path), tmp_path)[1]
    (run.folder / run.score).mkdir(parents=True)
    (run.folder / LOG).write_text(f"--- begin: 1\nedgekd: old\n--- begin: 2\nedgekd: {REASON}\n")

    def recall(_: Any, stages: list[Any], *__: Any, **___: Any) -> list[Any]:
        without = ("quantize/nncf-ptq-control", "engine/openvino-int8", "evaluate/openvino-int8")
        done = [one for one in stages if one.name not in without]
        return [StageRun(one, Details(of=one.name), True, 0.0) for one in done]  # type: ignore[arg-type]

    monkeypatch.setattr("edgekd.pipeline.recall", recall)
    return run


def test_the_other_engines_have_their_scores_and_the_run_is_not_repeated(run: StudyRun) -> None:
    assert finished(run) is None  # nothing is known about the missing engine
    result = outcome(run, 1, stopped=False)
    assert not isinstance(result, NoResult)
    assert result["evaluate/openvino-int8"] == LOST
    assert result["evaluate/onnxruntime-int8"].details["of"] == "evaluate/onnxruntime-int8"  # type: ignore[union-attr]
    again = finished(run)
    assert again is not None
    assert again["evaluate/openvino-int8"] == LOST


def test_it_is_tried_again_on_request_and_under_other_settings(run: StudyRun) -> None:
    ended(run)
    other = replace(run, recipe=run.recipe.model_copy(update={"seed": 9}))
    assert finished(other) is None
    assert finished(run) is not None
    forget([run])
    assert finished(run) is None
    assert not (run.folder / FILE).exists()
    forget([run])  # nothing to delete


def test_a_run_that_ended_for_another_reason_has_failed(run: StudyRun) -> None:
    (run.folder / LOG).write_text("--- begin: 1\nedgekd: the disk is full\n")
    result = outcome(run, 1, stopped=False)
    assert isinstance(result, NoResult)
    assert result.reason.startswith("the disk is full; see")
    assert finished(run) is None


def test_every_missing_engine_needs_a_reason(run: StudyRun) -> None:
    """The process was killed after the first failure, before the second engine."""
    names = {stage.name for stage in planning.select(planning.plan(run.recipe), run.until)}
    assert "quantize/nncf-ptq-control" in names
    (run.folder / LOG).write_text("--- begin: 1\nedgekd: engine/onnxruntime-int8 failed: no room\n")
    assert isinstance(outcome(run, 1, stopped=False), NoResult)

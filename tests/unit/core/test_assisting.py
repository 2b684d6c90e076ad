"""Processes that train with the first one leave out the stages that failed there; here both are threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from edgekd.core.artifact import StageResult
from edgekd.core.stage import Stage, StageJob
from edgekd.core.workspace import Workspace
from edgekd.pipeline import StageFailure, assist, run_stages
from tests.unit.core.small_recipe import small_recipe
from tests.unit.core.test_failures import BAD, BOTH, DATA, GOOD, ON_BOARD, REACHED
from tests.unit.core.test_failures import HERE as FAILURES

HERE = "tests.unit.core.test_assisting"
TOGETHER = Barrier(2)
BUDGET = Stage(
    "budget", "budget", f"{FAILURES}:join", (*BOTH, "first"), ("data",), optional_inputs=BOTH, fails_alone=True
)
QAT = Stage("qat", "checkpoint", f"{HERE}:train_together", ("budget",), ("data",))


def train_together(job: StageJob) -> StageResult:
    """Return when both threads train, with the names of the inputs."""
    TOGETHER.wait(60)
    return StageResult(details={"inputs": sorted(job.inputs)})


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a process that would wait for ever fail: here all that can be made is there already."""

    class Clock:  # of this module alone: other threads of the test session sleep as they like
        @staticmethod
        def sleep(_: float) -> None:
            raise AssertionError("it waits for a stage that never appears")

    monkeypatch.setattr("edgekd.core.workspace.time", Clock)


def followed(folder: Path, *stages: Stage) -> list[StageFailure]:
    """Run stages in a first process, and assist it in a second one while it trains; return the failures."""
    recipe, failed, known = small_recipe(folder), list[StageFailure](), [DATA, *stages]
    TOGETHER.reset()
    with Workspace(folder / "out").locked() as workspace, ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_stages, recipe, workspace, known, on_failure=failed.append)
        if known[-1].kind == "checkpoint":
            assist(recipe, Workspace(folder / "out"), known)
        run.result()
        assist(recipe, Workspace(folder / "out"), known)  # a process that comes late finds everything
    return failed


def test_a_training_behind_an_engine_that_failed_begins_in_both_processes(tmp_path: Path) -> None:
    failed = followed(tmp_path, BAD, GOOD, BUDGET, QAT)
    assert [one.name for one in failed] == ["engine/bad", "budget/good"]
    assert (tmp_path / "out/qat/manifest.json").exists()


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "stages",
    [
        (BAD, replace(BUDGET, inputs=("engine/bad",), optional_inputs=("engine/bad",)), QAT),  # every engine failed
        (BAD, replace(QAT, inputs=("engine/bad",))),
        (replace(BUDGET, inputs=("first",), optional_inputs=(), function=f"{FAILURES}:refuse", subject="b"), QAT),
    ],
)
def test_a_training_that_cannot_begin_is_left_out_by_both(tmp_path: Path, stages: tuple[Stage, ...]) -> None:
    recipe, failed, known = small_recipe(tmp_path), list[StageFailure](), [DATA, *stages]
    with Workspace(tmp_path / "out").locked() as workspace:
        run_stages(recipe, workspace, known, on_failure=failed.append)
        assert failed[-1].name == "qat"
        assist(recipe, Workspace(tmp_path / "out"), known)


@pytest.mark.usefixtures("no_waiting")
def test_a_stage_of_a_board_that_is_away_is_the_one_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REACHED, "a")
    training = replace(QAT, inputs=("bench@pi",), function=f"{FAILURES}:join")
    recipe, known = small_recipe(tmp_path), [DATA, ON_BOARD, training]
    with Workspace(tmp_path / "out").locked() as workspace:
        run_stages(recipe, workspace, known)
        monkeypatch.delenv(REACHED)
        assist(recipe, Workspace(tmp_path / "out"), known)

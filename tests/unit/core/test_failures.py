"""Stages that fail while the run goes on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.stage import Stage, StageJob
from edgekd.core.workspace import Workspace
from edgekd.errors import BoardAnswerError, BoardDiskError, BoardError, TargetError, WorkspaceError
from edgekd.pipeline import StageFailure, run_stages
from tests.unit.core.fake_stages import FAKE_PIPELINE
from tests.unit.core.fake_stages import HERE as FAKE
from tests.unit.core.small_recipe import small_recipe

HERE = "tests.unit.core.test_failures"


def refuse(job: StageJob) -> StageResult:
    """Fail as a toolchain does; the file `works` in the output folder mends it."""
    if (job.out_dir.parents[1] / "works").exists():
        return StageResult()
    raise TargetError(f"{job.subject}: this operator is not supported")


def crash(job: StageJob) -> StageResult:
    """Fail as a plugin does that raises what it likes."""
    raise ValueError("two\nlines")


def fill_the_disk(job: StageJob) -> StageResult:
    """Fail in a way that ends everything."""
    raise WorkspaceError("the disk is full")


def join(job: StageJob) -> StageResult:
    """Name the inputs that there are, and leave out those of `bad`."""
    failures = {} if (job.out_dir.parents[1] / "works").exists() else {"good": "it does not open"}
    return StageResult(details={"inputs": sorted(job.inputs)}, failures=failures)


DATA, STUDENT, _ = FAKE_PIPELINE
GOOD = Stage("engine/good", "engine", f"{FAKE}:write_size", ("first",), ("data",), "good", fails_alone=True)
BAD = Stage("engine/bad", "engine", f"{HERE}:refuse", ("first",), ("data",), "bad", fails_alone=True)
SCORE = Stage("evaluate/bad", "metrics", f"{HERE}:join", ("engine/bad",), ("data",), fails_alone=True)
BOTH = ("engine/good", "engine/bad")
BENCH = Stage("bench", "latency", f"{HERE}:join", (*BOTH, "first"), ("data",), optional_inputs=BOTH, fails_alone=True)


def run(folder: Path, *stages: Stage) -> tuple[list[str], list[StageFailure]]:
    """Return the stages that are done, and the failures."""
    failed: list[StageFailure] = []
    with Workspace(folder / "out").locked() as workspace:
        done = run_stages(small_recipe(folder), workspace, [DATA, *stages], on_failure=failed.append)
    return list(done), failed


def test_an_engine_that_fails_leaves_the_others_and_is_named_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, failed = run(tmp_path, BAD, GOOD)
    assert "engine/bad: failed: bad: this operator is not supported" in caplog.messages  # when it happens
    assert done == ["first", "engine/good"]
    assert failed == [StageFailure("engine/bad", "bad: this operator is not supported")]


def test_a_stage_whose_input_failed_does_not_run_and_says_why(tmp_path: Path) -> None:
    done, failed = run(tmp_path, BAD, SCORE)
    assert done == ["first"]
    assert failed[1] == StageFailure(
        "evaluate/bad", "engine/bad failed: bad: this operator is not supported", cause="engine/bad"
    )


def test_the_bench_measures_the_engines_that_were_built(tmp_path: Path) -> None:
    done, failed = run(tmp_path, GOOD, BAD, BENCH)
    assert done == ["first", "engine/good", "bench"]
    assert [one.name for one in failed] == ["engine/bad", "bench/good"]
    (tmp_path / "out/works").touch()
    done, failed = run(tmp_path, GOOD, BAD, BENCH)
    assert (done, failed) == (["first", "engine/good", "engine/bad", "bench"], [])


def test_without_an_engine_nothing_is_measured(tmp_path: Path) -> None:
    alone = replace(BENCH, inputs=("engine/bad", "first"), optional_inputs=("engine/bad",))
    done, failed = run(tmp_path, BAD, alone)
    assert (done, [one.name for one in failed]) == (["first"], ["engine/bad", "bench"])
    assert failed[1] == StageFailure("bench", "all of its inputs failed", cause="engine/bad")  # not said again


def test_an_artifact_with_a_failed_subject_is_made_again_the_next_time(tmp_path: Path) -> None:
    assert run(tmp_path, GOOD, BENCH.__class__(**{**vars(BENCH), "inputs": ("engine/good",)}))[1] != []
    (tmp_path / "out/works").touch()
    assert run(tmp_path, GOOD, BENCH.__class__(**{**vars(BENCH), "inputs": ("engine/good",)}))[1] == []


def test_an_error_of_a_plugin_is_one_line_with_the_plugins_last_line(tmp_path: Path) -> None:
    done, (failure,) = run(tmp_path, replace(BAD, function=f"{HERE}:crash"), GOOD)
    assert done == ["first", "engine/good"]
    assert 'raise ValueError("two\\nlines")`: ValueError: two lines;' in failure.reason
    assert not failure.is_bug


def test_an_error_of_edgekds_own_is_a_bug_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.core.user_code.is_theirs", lambda file: False)
    failed = run(tmp_path, replace(BAD, function=f"{HERE}:crash"), GOOD)[1]
    assert failed == [StageFailure("engine/bad", "ValueError: two lines", is_bug=True)]


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="full"):
        run(tmp_path, replace(BAD, function=f"{HERE}:fill_the_disk"), GOOD)


def test_a_training_that_fails_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        run(tmp_path, replace(STUDENT, function=f"{HERE}:refuse"), GOOD)


REACHED = "TEST_MACHINE"  # environment variable: the machine of the board below; without it the board is away
ON_BOARD = Stage(
    "bench@pi", "latency", f"{FAKE}:write_size", ("first",), ("data",), "pi", fails_alone=True,
    external_state=f"{HERE}:machine",
)  # fmt: skip


def machine(_: Recipe) -> str:
    """Return the machine of the board."""
    if REACHED not in os.environ:
        raise BoardError("board pi: unreachable; is it on?")
    return os.environ[REACHED]


def test_what_was_done_on_a_board_stays_while_it_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REACHED, "a")
    assert run(tmp_path, ON_BOARD) == (["first", "bench@pi"], [])
    monkeypatch.delenv(REACHED, raising=False)
    assert run(tmp_path, ON_BOARD) == (["first", "bench@pi"], [])
    monkeypatch.setenv(REACHED, "b")  # it comes back as another one
    assert run(tmp_path, ON_BOARD) == (["first", "bench@pi"], [])
    made = json.loads((tmp_path / "out/bench@pi/manifest.json").read_text())
    assert made["key_content"]["external_state"] == "b"


def test_a_stage_that_was_not_done_fails_alone_while_its_board_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REACHED, raising=False)
    away = StageFailure("bench@pi", "board pi: unreachable; is it on?")
    assert run(tmp_path, ON_BOARD, GOOD) == (["first", "engine/good"], [away])
    monkeypatch.setenv(REACHED, "a")
    run(tmp_path, ON_BOARD)
    monkeypatch.delenv(REACHED, raising=False)
    changed = replace(ON_BOARD, version=2)  # what there is was made by another edgekd
    assert run(tmp_path, changed) == (["first"], [away])


def test_a_run_that_stops_at_failures_stops_at_a_board_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REACHED, raising=False)
    with Workspace(tmp_path / "out").locked() as workspace, pytest.raises(BoardError, match="is it on"):
        run_stages(small_recipe(tmp_path), workspace, [DATA, ON_BOARD])


def answer_badly(job: StageJob) -> str:
    """Ask a board that says something else than an answer."""
    raise BoardAnswerError("board pi: unexpected job status: 'x'")


def test_a_board_that_answers_badly_fails_its_own_stage_and_not_the_run(tmp_path: Path) -> None:
    bad = replace(ON_BOARD, external_state=f"{HERE}:answer_badly")
    assert run(tmp_path, bad, GOOD) == (
        ["first", "engine/good"],
        [StageFailure("bench@pi", "board pi: unexpected job status: 'x'")],
    )


def fill_the_board(job: StageJob) -> StageResult:
    """Fail as a board does whose disk is full."""
    raise BoardDiskError("board pi: no room")


def test_a_full_disk_of_a_board_fails_its_stage_and_not_the_run(tmp_path: Path) -> None:
    full = replace(BAD, function=f"{HERE}:fill_the_board")
    assert run(tmp_path, full, GOOD) == (
        ["first", "engine/good"],
        [StageFailure("engine/bad", "board pi: no room")],
    )

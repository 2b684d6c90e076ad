"""Stages that fail while the run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.core.artifact import StageResult
from edgekd.core.stage import Stage, StageJob
from edgekd.core.workspace import Workspace
from edgekd.errors import TargetError, WorkspaceError
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

"""Studies: child processes, several studies in one folder, interrupts, and what a run without a result says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest
from filelock import FileLock

from edgekd.api import run_study
from edgekd.core.ranks import is_first_process
from edgekd.study.launchers.local import Options, environment, run_all, visible_gpus
from edgekd.study.plan import StudyRun
from edgekd.study.results import NoResult, Result
from edgekd.study.work import ELSEWHERE, Children, finished, outcome, result_elsewhere, why_failed
from tests.unit.core.small_recipe import small_recipe
from tests.unit.study.test_study import ARMS, Details, artifacts, runs_of


@pytest.mark.parametrize("by", ["an exception", "SIGTERM"])
def test_an_interrupt_stops_the_children_and_starts_no_more(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes from the second run, which ends at once; the first sleeps until it is told to stop."""
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    quick = [sys.executable, "-c", "print()"]
    real, started = Children.run, []

    def instead(self: Children, command: list[str], log: BinaryIO, environment: dict[str, str]) -> int:
        started.append(command)
        return real(self, slow if "plain-seed4" in " ".join(command) else quick, log, environment)

    monkeypatch.setattr(Children, "run", instead)

    said = {}

    def on_run(run: StudyRun, result: Result) -> None:
        said[run.folder] = result
        if run is runs[0]:
            return  # told to stop
        if by == "an exception":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)  # of this thread; the main one is interrupted meanwhile

    runs = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, Options(jobs=2), on_run)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(started) < len(runs)
    assert "ended by SIGTERM; run the study again" in why_failed(runs[0])
    assert said[runs[0].folder] == NoResult("missing", "interrupted")


@pytest.mark.parametrize(
    ("code", "stopped", "held", "expected"),
    [
        (0, False, False, NoResult("failed", "its data or its settings changed while it ran; run the study again")),
        (1, True, False, NoResult("missing", "interrupted")),
        (2, False, True, ELSEWHERE),
        (2, False, False, "the disk is full"),
    ],
)
def test_why_a_run_has_no_result(
    code: int, stopped: bool, held: bool, expected: NoResult | str, tmp_path: Path
) -> None:
    run = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)[0]
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").write_text("--- begin: 1\nedgekd: the disk is full\n")
    with FileLock(run.folder / ".lock") if held else nullcontext():
        result = outcome(run, code, stopped)
    assert isinstance(result, NoResult)
    if isinstance(expected, str):
        assert (result.status, result.reason.partition(";")[0]) == ("failed", expected)
    else:
        assert result == expected


@pytest.mark.parametrize(
    ("lock", "log", "status"),
    [
        (".claim", "", "missing"),
        (".lock", "", "missing"),
        (None, "--- begin: 1\nedgekd: the disk is full\n", "failed"),
        (None, "--- begin: 1\nedgekd: the disk is full\n--- begin: 2\n", None),  # the machine went down
        (None, "--- begin: 1\nedgekd: ended by SIGTERM; run the study again to go on\n", None),
        (None, "", None),
    ],
)
def test_a_run_that_another_process_had_is_asked_for_again(
    lock: str | None, log: str, status: str | None, tmp_path: Path
) -> None:
    run = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)[0]
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").write_text(log)
    with FileLock(run.folder / lock) if lock else nullcontext():
        result = result_elsewhere(run)
    assert getattr(result, "status", None) == status


def test_a_run_that_its_process_left_undone_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has one run while this one does the others, and ends without it."""
    (tmp_path / "weights.safetensors").touch()
    teacher = {"teacher": Details(params=5000), "evaluate/teacher": Details(metrics={"miou": 0.61})}
    monkeypatch.setattr(Details, "file", lambda self, name: tmp_path / name, raising=False)
    monkeypatch.setattr("edgekd.study.work.make_teacher", lambda *_: teacher)
    tried: list[list[StudyRun]] = []

    def run_all(runs: list[StudyRun], options: Options, on_run: Callable[[StudyRun, Result], None]) -> None:
        tried.append(runs)
        for run in runs:
            on_run(run, ELSEWHERE if run is tried[0][2] and len(tried) == 1 else artifacts(run, 0.5))

    monkeypatch.setattr("edgekd.study.launchers.local.run_all", run_all)
    content = run_study(small_recipe(tmp_path, study=ARMS), tmp_path)
    assert [len(runs) for runs in tried] == [6, 1]
    assert {run["status"] for arm in content["arms"] for run in arm["runs"]} == {"measured"}


def test_a_run_that_was_not_begun_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key would need the data set, which takes a minute to open where it is large."""
    run = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)[0]
    monkeypatch.delattr("edgekd.pipeline.recall")
    assert finished(run) is None
    run.folder.joinpath(run.score).mkdir(parents=True)
    with pytest.raises(AttributeError, match="recall"):
        finished(run)


def test_an_interrupted_study_keeps_what_earlier_ones_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tmp_path, study=ARMS)
    (tmp_path / "weights.safetensors").touch()
    teacher = {"teacher": Details(params=5000), "evaluate/teacher": Details(metrics={"miou": 0.61})}
    monkeypatch.setattr(Details, "file", lambda self, name: tmp_path / name, raising=False)
    monkeypatch.setattr("edgekd.study.work.make_teacher", lambda *_: teacher)
    monkeypatch.setattr(
        "edgekd.study.work.finished", lambda run: artifacts(run, 0.5) if run.arm != "kd" else None
    )  # as an earlier study left it

    def interrupted(runs: list[StudyRun], *_: object) -> None:
        assert {run.arm for run in runs} == {"kd"}
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.study.launchers.local.run_all", interrupted)
    told = []
    with pytest.raises(KeyboardInterrupt):
        run_study(recipe, tmp_path, on_run=lambda run, result, ended, total: told.append((run.arm, ended, total)))
    assert told == [("plain", 1, 6), ("kd+bckd", 2, 6), ("plain", 3, 6), ("kd+bckd", 4, 6)]
    written = json.loads((tmp_path / "study.json").read_text())
    states = {arm["name"]: [run["status"] for run in arm["runs"]] for arm in written["arms"]}
    assert states == {"plain": ["measured"] * 2, "kd": ["missing"] * 2, "kd+bckd": ["measured"] * 2}


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, expected in (("2,GPU-5e", ["2", "GPU-5e"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible_gpus() == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr("edgekd.study.launchers.local.usable_cores", lambda: 8)
    dealt = [environment(place, jobs=3) for place in range(3)]
    assert [own["CUDA_VISIBLE_DEVICES"] for own in dealt] == ["2", "5", "2"]
    assert {own["OMP_NUM_THREADS"] for own in dealt} == {"2"}


def test_the_reason_of_a_failure_is_the_last_attempts(tmp_path: Path) -> None:
    run = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)[0]
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").write_text("--- begin: 1\nedgekd: the disk is full\n--- begin: 2\nkilled\n")
    assert why_failed(run).startswith("no reason given")


def test_runs_do_not_take_themselves_for_a_part_of_the_teachers_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher trained on two devices leaves these behind; a run would then wait for a second process."""
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "12345"}.items():
        monkeypatch.setenv(name, value)
    assert not {"LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"} & set(environment(0, jobs=1))


@pytest.mark.parametrize(("variables", "expected"), [
    ({}, True), ({"LOCAL_RANK": "0", "RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False),
    ({"RANK": "10", "LOCAL_RANK": "0"}, False), ({"NODE_RANK": "1"}, False), ({"SLURM_PROCID": "3"}, False),
])  # fmt: skip
def test_the_first_process_has_no_number_but_zero(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is expected

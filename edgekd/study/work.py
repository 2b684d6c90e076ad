"""Runs a study: the teacher in this process, then every arm and seed as a separate process of `edgekd run`, by a launcher.

A run is claimed by a lock on its folder that ends with the process holding it. So several studies, on one machine or
on many that share the folder, work through the same list, and no finished run is done twice.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from edgekd import pipeline, planning
from edgekd.core.artifact import Artifact
from edgekd.core.ranks import is_first_process
from edgekd.core.recipe import Recipe
from edgekd.core.task_metrics import check_floor
from edgekd.core.workspace import Workspace, disk_errors
from edgekd.data.splits import shared_splits
from edgekd.errors import GateError
from edgekd.study import failed_engines, preloaded
from edgekd.study.plan import TEACHER, StudyRun, teacher_recipe, teacher_run, write_recipe
from edgekd.study.results import NoResult, Result

ELSEWHERE = NoResult("missing", "another process works on it")
LOG = "log.txt"
Launch = Callable[[Sequence[StudyRun], Callable[[StudyRun, Result], None]], None]  # does runs, see `study/launchers`
Start = Callable[
    [Sequence[str], BinaryIO, Mapping[str, str]], preloaded.Started
]  # of a command, its log, its environment
_LOOKUP = threading.Lock()  # a data set opened by one thread at a time takes its memory once
_BEGIN = "--- begin: "  # of every attempt in a run's log
_ENDED_BY = "ended by "  # a signal: the run can be resumed


def make_teacher(recipe: Recipe, out: Path, on_stage: Callable[[pipeline.StageRun], None]) -> dict[str, Artifact]:
    """Train (or take) and score the teacher in OUT/teacher; return its artifacts by stage name.

    Waits for another study that is making this teacher.

    Raises:
        GateError: its score is below `teacher.floor`.
        EdgekdError: as a run's.
    """
    wanted = teacher_recipe(recipe)
    everything = planning.plan(wanted)
    stages = planning.select(everything, "evaluate/teacher")
    if not is_first_process():  # Lightning started it to train the teacher on several devices
        pipeline.assist(wanted, Workspace(out / TEACHER), stages, prerequisites=everything)
        raise SystemExit(0)
    with Workspace(out / TEACHER).locked(wait=True) as workspace, disk_errors(workspace.root):
        done = pipeline.run_stages(wanted, workspace, stages, on_stage, prerequisites=everything)
    check_floor(recipe.task, done["evaluate/teacher"].artifact.details["metrics"], recipe.teacher.floor)
    return {name: stage_run.artifact for name, stage_run in done.items()}


def launch_teacher(recipe: Recipe, out: Path, launch: Launch) -> None:
    """Let a launcher train and score the teacher into OUT/teacher, unless that is done.

    Raises:
        GateError: it has no result; the reason is in the message.
    """
    run, results = teacher_run(recipe, out), list[Result]()
    if finished(run) is None:
        launch([run], lambda _, result: results.append(result))
    if results and isinstance(results[0], NoResult):
        raise GateError(f"the teacher has no result: {results[0].reason}")


def do_all(runs: Sequence[StudyRun], launch: Launch, on_run: Callable[[StudyRun, Result], None]) -> None:
    """Do the runs that are not done, by a launcher.

    Args:
        runs: all runs of the study, or those that others start from.
        launch: does the runs that it is given.
        on_run: called with every run that has a result, or none; again for one that another process had.
    """
    left, elsewhere = [], list[StudyRun]()

    def note(run: StudyRun, result: Result) -> None:
        if isinstance(result, NoResult) and result.status == "missing":
            elsewhere.append(run)
        on_run(run, result)

    with shared_splits():
        for one in runs:  # all that there is first, so that nothing written meanwhile or later has less
            start = one.recipe.student.checkpoint
            if artifacts := finished(one):
                on_run(one, artifacts)
            elif start is not None and not start.is_file():
                on_run(one, NoResult("missing", f"its student has no weights yet: {start}"))
            else:
                left.append(one)
    while left:
        launch(left, note)
        left = []
        for one in elsewhere:  # by now they may be done, or left undone by those who had them
            if found := result_elsewhere(one):
                on_run(one, found)
            else:
                left.append(one)
        elsewhere.clear()


class Children:
    """The training processes, so that they can be stopped; they keep their checkpoints and resume later."""

    def __init__(self, start: Start = preloaded.start) -> None:
        self._start, self._lock, self._running, self.stopped = start, threading.RLock(), set[preloaded.Started](), False

    def run(self, command: list[str], log: BinaryIO, environment: dict[str, str]) -> int:
        """Run a command to its end and return its exit code; -SIGTERM if it was stopped before it began."""
        with self._lock:
            if self.stopped:
                return -signal.SIGTERM
            child = self._start(command, log, environment)
            self._running.add(child)
        code = child.wait()
        with self._lock:
            self._running.discard(child)
        return code

    def stop(self) -> None:
        """Send SIGTERM to all, and start no more."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                child.terminate()

    def wait(self, most_s: float) -> None:
        """Wait until all have ended. Works in a signal handler that interrupts `run`, which holds `Popen`'s lock."""
        until = time.monotonic() + most_s
        for child in list(self._running):
            while time.monotonic() < until and _is_running(child.pid):
                time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def finished(run: StudyRun) -> Mapping[str, Artifact | NoResult] | None:
    """Return the artifacts of a run by stage name, None when it is not finished under the study's settings.

    An engine that failed alone counts as finished, with the reason in place of its score. Nothing is moved: another process may be
    at work in the folder.
    """
    workspace = Workspace(run.folder)
    if not (workspace.artifact_dir(run.score).exists() or (run.folder / ".previous").exists()):
        return None  # without opening the data set, which takes a minute of a large one
    stages = planning.select(planning.plan(run.recipe), run.until)
    with _LOOKUP:
        known = pipeline.recall(run.recipe, stages, [], workspace, is_held=False)
    done: dict[str, Artifact | NoResult] = {r.stage.name: r.artifact for r in known}
    if len(known) == len(stages):
        return done
    missing, failed = [name for name in run.engines if f"evaluate/{name}" not in done], failed_engines.known(run)
    if run.score not in done or not missing or not set(missing) <= set(failed):
        return None
    return done | {f"evaluate/{name}": NoResult("failed", failed[name]) for name in missing}


def result_elsewhere(run: StudyRun) -> Result | None:
    """Return the result of a run that another process did; None if that process left it unfinished."""
    if artifacts := finished(run):
        return artifacts
    if _is_held(run.folder / ".claim") or _is_held(run.folder / ".lock"):
        return ELSEWHERE
    said = _last_words(run)
    return ended(run) if said and not said.startswith(_ENDED_BY) else None


def ended(run: StudyRun) -> Result:
    """Return the result of a run whose process has ended by itself; remember the engines that failed alone."""
    if artifacts := finished(run):
        return artifacts
    if failed_engines.remember(run, _errors(run)) and (artifacts := finished(run)):
        return artifacts
    return NoResult("failed", why_failed(run))


def why_failed(run: StudyRun) -> str:
    """Return the last error line of the run's last process, and the path of its log."""
    return f"{_last_words(run) or 'no reason given'}; see {run.folder / LOG}"


def _last_words(run: StudyRun) -> str:
    """Return the last error line of the run's last process, "" when there is none."""
    said = _errors(run)
    return said[-1] if said else ""


def _errors(run: StudyRun) -> list[str]:
    """Return the error lines of the run's last process."""
    log = run.folder / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = text.rpartition(_BEGIN)[2].splitlines()
    return [line.removeprefix("edgekd: ") for line in lines if line.startswith("edgekd: ")]


def attempt(run: StudyRun, children: Children, environment: dict[str, str]) -> Result:
    """Do a run in a child process and return its artifacts, or why it has none."""
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.folder / ".claim", timeout=0):
            if artifacts := finished(run):  # by another process, since this one looked
                return artifacts
            write_recipe(run)
            command = [sys.executable, "-m", "edgekd.cli.main", "run", str(run.recipe_file), "--out", str(run.folder)]
            with open(run.folder / LOG, "ab", buffering=0) as log:
                log.write(f"{_BEGIN}{command[2:]}\n".encode())
                code = children.run([*command, "--until", run.until], log, environment)
                if code < 0:
                    log.write(
                        f"edgekd: {_ENDED_BY}{signal.Signals(-code).name}; run the study again to go on\n".encode()
                    )
            return outcome(run, code, children.stopped)
    except Timeout:
        return ELSEWHERE


def outcome(run: StudyRun, code: int, stopped: bool) -> Result:
    """Return the result of a run whose process has ended."""
    if code == 0:
        changed = "its data or its settings changed while it ran; run the study again"
        return finished(run) or NoResult("failed", changed)
    if stopped:
        return NoResult("missing", "interrupted")
    if _is_held(run.folder / ".lock"):  # left by a study that was killed, or started by hand
        return ELSEWHERE
    return ended(run)


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True

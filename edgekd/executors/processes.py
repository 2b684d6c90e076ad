"""Runs the worker as a child process: a separate process group that is killed as a whole, a time-out, a bounded log."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from edgekd.board.files import is_full
from edgekd.board.job import JOB, RESULT, Json, Progress, read_progress
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.errors import TargetError, WorkspaceError
from edgekd.executors import outcomes
from edgekd.executors.base import no_progress
from edgekd.targets.base import Toolchain

MAX_LOG_BYTES = 256 << 20
_POLL_S = 0.05


def run_worker(
    python: Path,
    folder: Path,
    environment: dict[str, str],
    log: Path,
    facts: Toolchain,
    what: str,
    progress: Progress = no_progress,
) -> Json:
    """Run the worker on the job in `folder` and return the value of its result; errors as `Executor.run_job`.

    Args:
        python: interpreter.
        folder: holds job.json; the process works in it.
        environment: environment of the process; edgekd's portable part is on its PYTHONPATH.
        log: file to write.
        facts: patterns and time-out of the toolchain.
        what: name of the job in messages: target and task.
        progress: called with the progress that the job reports.
    """
    command = [str(python), "-m", "edgekd.worker", JOB]
    try:
        exit_code = _supervise(command, folder, environment, log, outcomes.timeout_s(facts), what, progress)
        return outcomes.value_of(folder / RESULT, exit_code, log, facts, what)
    except TargetError as exc:
        for place in (log.parent, folder):
            if is_full(place):  # a full disk has many symptoms
                raise WorkspaceError(f"{place}: {os.strerror(errno.ENOSPC)}; make room and run it again") from exc
        raise


def _supervise(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    log: Path,
    timeout_s: float,
    what: str,
    progress: Progress,
) -> int:
    """Run a command in a new process group until it ends, then kill every process that it left."""
    started = time.monotonic()
    shown: tuple[str, float] | None = None
    with ended_like_ctrl_c(), ExitStack() as stack:
        file = stack.enter_context(open(log, "wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        stack.callback(_kill_group, process)
        while process.poll() is None:
            if time.monotonic() - started > timeout_s:
                raise outcomes.timed_out(timeout_s, log, what)
            if log.stat().st_size > MAX_LOG_BYTES:
                raise outcomes.flooded(MAX_LOG_BYTES, log, what)
            shown = _show(folder, shown, progress)
            time.sleep(_POLL_S)
        _show(folder, shown, progress)
        return process.returncode


def _show(folder: Path, shown: tuple[str, float] | None, progress: Progress) -> tuple[str, float] | None:
    """Pass on the worker's progress when it is new, and return it."""
    said = read_progress(folder)
    if said is not None and said != shown:
        progress(*said)
    return said


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the rest of the group: the process itself, and children that outlived it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

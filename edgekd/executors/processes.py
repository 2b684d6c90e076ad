"""Runs the worker as a child process, and believes nothing that it cannot check.

Vendor compilers crash with SIGSEGV, hang, print errors and return success. So: a process group of its own that is killed
as a whole, a time-out, a log on disk that is scanned for the target's error patterns, and a result file. Each way to fail
is an error of its own with the end of the log in it.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from edgekd import errors
from edgekd.board.files import is_full
from edgekd.board.job import JOB, RESULT, JobFailure, Json, read_progress, read_result
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.errors import (
    ArtifactError,
    ToolchainCrashError,
    ToolchainError,
    ToolchainLogError,
    ToolchainTimeoutError,
    WorkspaceError,
)
from edgekd.executors.base import Progress, no_progress
from edgekd.executors.logs import last_lines, lines_with
from edgekd.targets.base import Toolchain

TIMEOUT_VARIABLE = "EDGEKD_TOOLCHAIN_TIMEOUT_S"
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
        environment: of the process; edgekd's portable part is on its PYTHONPATH.
        log: file to write.
        facts: patterns and time-out of the toolchain.
        what: name of the job in messages: target and task.
        progress: called with what the job says of its progress.
    """
    command = [str(python), "-m", "edgekd.worker", JOB]
    try:
        exit_code = _supervise(command, folder, environment, log, _timeout_s(facts), what, progress)
        return _value(folder, exit_code, log, facts, what)
    except errors.TargetError as exc:
        for place in (log.parent, folder):
            if is_full(place):  # whatever else it looks like
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
    """Run a command in a process group of its own until it ends, and leave no process of it behind."""
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
                raise ToolchainTimeoutError(
                    f"{what}: did not end within {timeout_s:g} s and was killed; {_ending(log)}; if it only needs "
                    f"longer, set {TIMEOUT_VARIABLE}"
                )
            if log.stat().st_size > MAX_LOG_BYTES:
                raise ToolchainCrashError(
                    f"{what}: printed more than {MAX_LOG_BYTES >> 20} MiB and was killed; {_ending(log)}"
                )
            shown = _show(folder, shown, progress)
            time.sleep(_POLL_S)
        _show(folder, shown, progress)
        return process.returncode


def _show(folder: Path, shown: tuple[str, float] | None, progress: Progress) -> tuple[str, float] | None:
    """Pass on what the worker says of its progress, when it is new, and return it."""
    said = read_progress(folder)
    if said is not None and said != shown:
        progress(*said)
    return said


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group: the process itself, and children that outlived it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _value(folder: Path, exit_code: int, log: Path, facts: Toolchain, what: str) -> Json:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        raise ToolchainCrashError(f"{what}: the toolchain crashed with {name}{hint}; {_ending(log)}")
    try:
        result = read_result(folder / RESULT)
    except FileNotFoundError as exc:
        raise ToolchainCrashError(
            f"{what}: the toolchain ended with exit code {exit_code} and without a result; {_ending(log)}"
        ) from exc
    except ArtifactError as exc:
        raise ToolchainCrashError(f"{what}: the toolchain left an unreadable result: {exc}; {_ending(log)}") from exc
    found = lines_with(log, facts.log_errors, without=facts.log_notes)
    if result.failure is not None:
        _raise(result.failure, found, log, what)
    if found:
        raise ToolchainLogError(
            f"{what}: the toolchain reported success, but logged {len(found)} errors, the first: {found[0]!r}; "
            f"its output is not used; whole log: {log}"
        )
    if exit_code != 0:
        raise ToolchainCrashError(f"{what}: wrote a result and then failed with exit code {exit_code}; {_ending(log)}")
    assert result.value is not None  # read_result: a value or a failure
    return result.value


def _raise(failure: JobFailure, found: list[str], log: Path, what: str) -> None:
    """Raise what the worker caught, as the same class where it is one of edgekd's."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(failure.traceback)
    if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise WorkspaceError(f"{what}: {failure.message}; make room and run it again; log: {log}")
    if failure.is_user_error:
        kind = getattr(errors, failure.kind, errors.TargetError)
        logged = f"; it logged: {found[0]!r}" if found and found[0] not in failure.message else ""
        raise kind(f"{failure.message}{logged}; whole log: {log}")
    raise ToolchainCrashError(f"{what}: {failure.kind} in the toolchain: {failure.message}; whole log: {log}")


def _ending(log: Path) -> str:
    last = last_lines(log)
    return f"the last of its log: {last!r}; whole log: {log}" if last else "it logged nothing"


def _timeout_s(facts: Toolchain) -> float:
    text = os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return facts.timeout_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ToolchainError(f"{TIMEOUT_VARIABLE}: expected seconds, more than 0, got {text!r}")
    return seconds

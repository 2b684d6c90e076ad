"""Outcome of a worker process: the value of its result, or an error for the way in which it failed.

Vendor compilers crash with SIGSEGV, hang, print errors and return success. So three things are checked: exit
code, result file, and the log, which is searched for the target's error patterns. Each kind of failure has its error class,
whose text ends with the end of the log.
"""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path

from edgekd.board.job import JobFailure, Json, read_result
from edgekd.errors import (
    ArtifactError,
    CheckpointError,
    DataError,
    EdgekdError,
    ImageError,
    PackageError,
    TargetError,
    ToolchainCrashError,
    ToolchainError,
    ToolchainLogError,
    ToolchainTimeoutError,
    WorkspaceError,
)
from edgekd.executors.logs import last_lines, lines_with, printable
from edgekd.targets.base import Toolchain

# Error classes that a job may report, by name. A job cannot report a failed recipe, gate or board.
_OF_JOBS: dict[str, type[EdgekdError]] = {
    kind.__name__: kind
    for kind in (
        ArtifactError, CheckpointError, DataError, ImageError, PackageError, TargetError, ToolchainError, ToolchainCrashError,
        ToolchainLogError, ToolchainTimeoutError, WorkspaceError,
    )
}  # fmt: skip
TIMEOUT_VARIABLE = "EDGEKD_TOOLCHAIN_TIMEOUT_S"


def value_of(path: Path, exit_code: int, log: Path, facts: Toolchain, what: str) -> Json:
    """Return the value of a worker's result; errors as `Executor.run_job`.

    Args:
        path: its `result.json`, which need not exist.
        exit_code: exit code of the process; less than 0: the signal that ended it.
        log: what it printed.
        facts: patterns of the toolchain.
        what: name of the job in messages: target and task.
    """
    if exit_code < 0:
        names = {int(one): one.name for one in signal.Signals}
        name = names.get(-exit_code, f"signal {-exit_code}")
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        raise ToolchainCrashError(f"{what}: the toolchain crashed with {name}{hint}; {ending(log)}")
    try:
        result = read_result(path)
    except FileNotFoundError as exc:
        raise ToolchainCrashError(
            f"{what}: the toolchain ended with exit code {exit_code} and without a result; {ending(log)}"
        ) from exc
    except ArtifactError as exc:
        raise ToolchainCrashError(f"{what}: the toolchain left an unreadable result: {exc}; {ending(log)}") from exc
    found = lines_with(log, facts.log_errors, without=facts.log_notes)
    if result.failure is not None:
        _raise(result.failure, found, log, what)
    if found:
        raise ToolchainLogError(
            f"{what}: the toolchain reported success, but logged {len(found)} errors, the first: {found[0]!r}; "
            f"its output is not used; whole log: {log}"
        )
    if exit_code != 0:
        raise ToolchainCrashError(f"{what}: wrote a result and then failed with exit code {exit_code}; {ending(log)}")
    assert result.value is not None  # read_result: a value or a failure
    return result.value


def _raise(failure: JobFailure, found: list[str], log: Path, what: str) -> None:
    """Raise the worker's error, as the same class where it is one that jobs raise; the worker may be another machine's."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(failure.traceback)
    message = printable(failure.message)
    if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise WorkspaceError(f"{what}: {message}; make room and run it again; log: {log}")
    if failure.is_user_error:
        kind = _OF_JOBS.get(failure.kind, TargetError)
        logged = f"; it logged: {found[0]!r}" if found and found[0] not in failure.message else ""
        raise kind(f"{message}{logged}; whole log: {log}")
    raise ToolchainCrashError(f"{what}: {printable(failure.kind)} in the toolchain: {message}; whole log: {log}")


def timed_out(seconds: float, log: Path, what: str) -> ToolchainTimeoutError:
    """Return the error of a process that was killed because it did not end in time."""
    return ToolchainTimeoutError(
        f"{what}: did not end within {seconds:g} s and was killed; {ending(log)}; if it only needs longer, set "
        f"{TIMEOUT_VARIABLE}"
    )


def flooded(size_bytes: int, log: Path, what: str) -> ToolchainCrashError:
    """Return the error of a process that was killed because it printed too much."""
    return ToolchainCrashError(f"{what}: printed more than {size_bytes >> 20} MiB and was killed; {ending(log)}")


def ending(log: Path) -> str:
    """Return the end of a log as a part of a sentence."""
    last = last_lines(log)
    return f"the last of its log: {last!r}; whole log: {log}" if last else "it logged nothing"


def timeout_s(facts: Toolchain) -> float:
    """Return the seconds after which a job of a toolchain is killed; ToolchainError for a variable that holds none."""
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

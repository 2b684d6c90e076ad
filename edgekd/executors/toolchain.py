"""Runs a job in a toolchain's virtualenv as a child process, and believes nothing that it cannot check.

Vendor compilers crash with SIGSEGV, hang, print errors and return success. So: a process group of its own that is killed
as a whole, a time-out, a log on disk that is scanned for the target's error patterns, and a result file. Each way to fail
is an error of its own with the end of the log in it.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd import errors
from edgekd.board.files import is_full
from edgekd.board.job import JOB, RESULT, Job, JobFailure, read_result, write_job
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.errors import (
    ArtifactError,
    ToolchainCrashError,
    ToolchainError,
    ToolchainLogError,
    ToolchainTimeoutError,
    WorkspaceError,
)
from edgekd.executors import portable, venvs
from edgekd.executors.logs import last_lines, lines_with
from edgekd.targets.base import CompileRequest, CompileResult, Toolchain

_log = logging.getLogger(__name__)
TIMEOUT_VARIABLE = "EDGEKD_TOOLCHAIN_TIMEOUT_S"
LOG = "toolchain.log"
MAX_LOG_BYTES = 256 << 20
_POLL_S = 0.05


RunJob = Callable[[Job, Path], dict[str, Any]]


@dataclass(frozen=True)
class Compiled:
    """An engine, and the version that its toolchain gave of itself."""

    result: CompileResult
    runtime_version: str


def compile_engine(name: str, request: CompileRequest, run: RunJob | None = None) -> Compiled:
    """Build an engine in another process; its log is `toolchain.log` in `request.out_dir`.

    Args:
        name: of the target.
        request: what to build.
        run: runs the job; default: in the virtualenv of the target.

    Raises:
        ToolchainError: not installed, crashed, hung, logged errors, or left no engine; see its subclasses.
        TargetError: the toolchain refuses the model.
        WorkspaceError: the disk is full.
    """
    out_dir = request.out_dir.absolute()
    arguments = {
        "model": str(request.model.absolute()),
        "out_dir": str(out_dir),
        "spec": request.spec.to_dict(),
        "precision": request.precision,
        "options": asdict(request.options),
        "calibration": str(request.calibration.absolute()) if request.calibration else None,
    }
    value = (run or run_job)(Job("compile", name, arguments), out_dir / LOG)
    engine = out_dir / value["engine"]
    if not engine.is_file() or engine.stat().st_size == 0:
        state = "an empty one" if engine.is_file() else "none"
        raise ToolchainError(
            f"{name}: the toolchain reported success, expected the engine {engine}, got {state}; log: {out_dir / LOG}"
        )
    facts = plugins.target(name).info.toolchain or Toolchain()
    notes = lines_with(out_dir / LOG, facts.log_notes)
    for note in notes:
        _log.warning("%s: the toolchain noted: %s", name, note)
    details = {**value["details"], "log_notes": notes}
    result = CompileResult(engine, ModelSpec.from_dict(value["spec"]), details)
    return Compiled(result, value["runtime_version"])


def run_job(job: Job, log: Path, root: Path | None = None) -> dict[str, Any]:
    """Do a job in the virtualenv of the job's target and return the value of its result.

    Args:
        job: paths in it are absolute.
        log: file for what the process prints, stdout and stderr.
        root: of the toolchains, see `venvs.root_of`.

    Raises:
        ToolchainError, TargetError, WorkspaceError: as in `compile_engine`.
    """
    module = plugins.load("targets", job.target)
    facts = plugins.target(job.target).info.toolchain or Toolchain()
    venv = venvs.find(venvs.lock_of(job.target), venvs.root_of(root))
    with TemporaryDirectory(prefix="edgekd-job-") as folder:
        write_job(replace(job, module=module.__name__), Path(folder))
        code = portable.copy_to(Path(folder) / "code", module)
        environment = isolated(venv.python, code)
        return run_worker(venv.python, Path(folder), environment, log, facts, f"{job.target} {job.task}")


def run_worker(
    python: Path, folder: Path, environment: dict[str, str], log: Path, facts: Toolchain, what: str
) -> dict[str, Any]:
    """Run the worker on the job in `folder` and return the value of its result; errors as in `run_job`.

    Args:
        python: interpreter.
        folder: holds job.json; the process works in it.
        environment: of the process; edgekd's portable part is on its PYTHONPATH.
        log: file to write.
        facts: patterns and time-out of the toolchain.
        what: names the job in messages, e.g. `rknn compile`.
    """
    command = [str(python), "-m", "edgekd.worker", JOB]
    try:
        exit_code = _supervise(command, folder, environment, log, _timeout_s(facts), what)
        return _value(folder, exit_code, log, facts, what)
    except errors.TargetError as exc:
        for place in (log.parent, folder):
            if is_full(place):  # whatever else it looks like
                raise WorkspaceError(f"{place}: {os.strerror(errno.ENOSPC)}; make room and run it again") from exc
        raise


def _supervise(
    command: list[str], folder: Path, environment: dict[str, str], log: Path, timeout_s: float, what: str
) -> int:
    """Run a command in a process group of its own until it ends, and leave no process of it behind."""
    started = time.monotonic()
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
            time.sleep(_POLL_S)
        return process.returncode


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group: the process itself, and children that outlived it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _value(folder: Path, exit_code: int, log: Path, facts: Toolchain, what: str) -> dict[str, Any]:
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


def isolated(python: Path, code: Path) -> dict[str, str]:
    """Return the caller's environment without its Python: only the virtualenv's packages and edgekd's portable code."""
    kept: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(code),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

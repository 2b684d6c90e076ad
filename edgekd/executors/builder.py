"""Calls a target's builder and parser in the process that its `compile_at` names."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from edgekd.board.arguments import CompileArguments, ProbeArguments
from edgekd.board.job import Job
from edgekd.core import plugins
from edgekd.core.recipe import LOCAL
from edgekd.errors import TargetError, ToolchainError
from edgekd.executors.answers import mapping_of, path_of, spec_of, text_of
from edgekd.executors.base import Executor
from edgekd.executors.boards import executor_of
from edgekd.executors.child import Child
from edgekd.executors.local import Local
from edgekd.executors.logs import LOG, lines_with
from edgekd.executors.toolchain import ToolchainExecutor
from edgekd.targets.base import CompileRequest, CompileResult, Probe, Refusal, Toolchain

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compiled:
    """An engine, and the version that its toolchain reports."""

    result: CompileResult
    runtime_version: str


def build(name: str, request: CompileRequest, board: str = LOCAL) -> Compiled:
    """Build an engine of a target; where another process builds it, `toolchain.log` in `request.out_dir` is its log.

    Raises:
        TargetError: the target refuses the model.
        ToolchainError: not installed, crashed, hung, logged errors, or left no engine; see its subclasses.
        WorkspaceError: the disk is full.
    """
    files = {path.name: path for path in _with_siblings(request.model)}
    if request.calibration:
        files[request.calibration.name] = request.calibration
    arguments: CompileArguments = {
        "model": request.model.name,
        "spec": request.spec.to_dict(),
        "precision": str(request.precision),
        "options": asdict(request.options),
        "calibration": request.calibration.name if request.calibration else None,
    }
    written = request.out_dir / LOG
    value = _builder(name, board).run_job(Job("compile", name, arguments), files, request.out_dir, written)
    engine = request.out_dir / path_of(value, "engine")
    if not engine.is_file() or engine.stat().st_size == 0:
        state = "an empty one" if engine.is_file() else "none"
        raise ToolchainError(
            f"{name}: the toolchain reported success, expected the engine {engine}, got {state}; log: {written}"
        )
    details = mapping_of(value, "details")
    if written.exists():
        facts = plugins.target(name).info.toolchain or Toolchain()
        details = {**details, "log_notes": lines_with(written, facts.log_notes)}
        for note in details["log_notes"]:
            log.warning("%s: the toolchain noted: %s", name, note)
    return Compiled(CompileResult(engine, spec_of(value, "spec"), details), text_of(value, "runtime_version"))


def probe(name: str, model: Path, options: Any) -> Probe:
    """Ask the toolchain of a target which nodes of a model it takes.

    Raises:
        TargetError: the toolchain is not here, or cannot be asked.
        ToolchainCrashError: it crashed; its log is kept.
    """
    folder = Path(mkdtemp(prefix="edgekd-probe-"))
    files = {path.name: path for path in _with_siblings(model)}
    arguments: ProbeArguments = {"model": model.name, "options": asdict(options)}
    job = Job("probe", name, arguments)
    try:
        value = _builder(name, LOCAL).run_job(job, files, folder, folder / LOG)
    except TargetError as exc:
        if not isinstance(exc, ToolchainError):  # whose log stands there
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    return Probe(value["tool"], tuple(Refusal(**one) for one in value["refusals"]))


def _builder(name: str, board: str) -> Executor:
    """Return the executor in which a target compiles for a board."""
    where = plugins.target(name).info.compile_at
    if where == "toolchain":
        return ToolchainExecutor(name)
    if where == "child":
        return Child()
    if where == "board":
        return Child() if board == LOCAL else executor_of(board)  # its builder can crash
    return Local()


def _with_siblings(model: Path) -> list[Path]:
    """Return a model's file and those that belong to it: external data (`model.onnx.data`), weights (`model.bin`)."""
    return [model, *(path for path in model.parent.glob(f"{model.stem}.*") if path != model and path.is_file())]

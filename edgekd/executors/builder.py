"""Calls a target's builder and parser in the process in which they belong, which its `compile_at` says."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from edgekd.board.job import Job
from edgekd.core import plugins
from edgekd.executors import child, toolchain
from edgekd.executors.toolchain import LOG, Compiled, RunJob
from edgekd.targets.base import CompileRequest, Probe, Refusal


def build(name: str, request: CompileRequest) -> Compiled:
    """Build an engine of a target.

    Raises:
        TargetError: the target refuses the model.
        ToolchainError, WorkspaceError: as `toolchain.compile_engine`; not of a target that compiles in this process.
    """
    target, run = plugins.target(name), _elsewhere(name)
    if run is None:
        return Compiled(target.build_engine(request), target.runtime_version())
    return toolchain.compile_engine(name, request, run)


def probe(name: str, model: Path, options: Any) -> Probe:
    """Ask the toolchain of a target, which has a probe, which nodes of a model it takes.

    Raises:
        TargetError: the toolchain is not here, or cannot be asked.
        ToolchainCrashError: it crashed; its log is kept.
    """
    target, run = plugins.target(name), _elsewhere(name)
    assert target.probe is not None
    if run is None:
        return target.probe(model, options)
    folder = Path(mkdtemp(prefix="edgekd-probe-"))
    arguments = {"model": str(model.absolute()), "options": asdict(options)}
    said = run(Job("probe", name, arguments), folder / LOG)
    shutil.rmtree(folder)
    return Probe(said["tool"], tuple(Refusal(**one) for one in said["refusals"]))


def _elsewhere(name: str) -> RunJob | None:
    """Return what runs a job of the target in another process; None for a target that compiles in this one."""
    where = plugins.target(name).info.compile_at
    if where == "host":
        return None
    return toolchain.run_job if where == "toolchain" else child.run_job

"""A vendor's virtualenv as an executor: its compiler, and the simulator of its chips where it has one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.job import Job, Json, Progress, write_job
from edgekd.board.session import Session
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.executors import portable, venvs
from edgekd.executors.base import Identity, absolute, no_progress
from edgekd.executors.local import Local
from edgekd.executors.processes import run_worker
from edgekd.targets.base import Toolchain


class ToolchainExecutor:
    """The virtualenv of one target's toolchain on this machine.

    Args:
        target: name of the target.
        root: folder of the virtualenvs, see `venvs.root_of`.
    """

    def __init__(self, target: str, root: Path | None = None) -> None:
        self.target, self.root = target, root

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job in the virtualenv, with a copy of edgekd's portable code; ToolchainError when it is not installed."""
        module = plugins.load("targets", job.target)
        facts = plugins.target(job.target).info.toolchain or Toolchain()
        venv = venvs.find(venvs.lock_of(job.target), venvs.root_of(self.root))
        with TemporaryDirectory(prefix="edgekd-job-") as folder:
            placed = replace(job, module=module.__name__, files=absolute(files), out_dir=str(out_dir.absolute()))
            write_job(placed, Path(folder))
            environment = isolated(venv.python, portable.copy_to(Path(folder) / "code", [module]))
            return run_worker(venv.python, Path(folder), environment, log, facts, f"{job.target} {job.task}", progress)

    def open_session(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Return a session that computes in the toolchain's simulator; TargetError when it has none."""
        from edgekd.executors.simulator import SimulatedSession

        return SimulatedSession(self, artifact)

    def identity(self) -> Identity:
        """Return this machine with the packages of the virtualenv."""
        found = venvs.find(venvs.lock_of(self.target), venvs.root_of(self.root))
        here = Local().identity()
        return Identity(here.hardware, here.use, dict(found.packages))

    def facts(self) -> Facts:
        """Return hardware, system, clocks and temperatures of this machine."""
        return Local().facts()


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

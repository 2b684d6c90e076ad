"""A child process of this Python as an executor: a crash in it does not end this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.job import Job, Json, Progress, write_job
from edgekd.core import plugins
from edgekd.executors.base import absolute, no_progress
from edgekd.executors.local import Local
from edgekd.executors.processes import run_worker
from edgekd.targets.base import Toolchain


class Child(Local):
    """This machine with this Python's packages; jobs run in a child process, sessions in this one."""

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job in a child process; ToolchainCrashError when it crashed."""
        facts = (plugins.target(job.target).info.toolchain if job.target else None) or Toolchain()
        module = plugins.load("targets", job.target).__name__ if job.target else ""
        with TemporaryDirectory(prefix="edgekd-job-") as folder:
            write_job(replace(job, module=module, files=absolute(files), out_dir=str(out_dir.absolute())), Path(folder))
            what = f"{job.target} {job.task}".strip()
            return run_worker(Path(sys.executable), Path(folder), _environment(), log, facts, what, progress)


def _environment() -> dict[str, str]:
    """Return this process's environment, with every folder from which it imports."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}

"""Runs a job in a child process of this Python, with its packages: what may crash there leaves this process alive."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.job import Job, write_job
from edgekd.core import plugins
from edgekd.executors.toolchain import run_worker
from edgekd.targets.base import Toolchain


def run_job(job: Job, log: Path) -> dict[str, Any]:
    """Do a job and return the value of its result; arguments and errors as `toolchain.run_job`."""
    facts = plugins.target(job.target).info.toolchain or Toolchain()
    with TemporaryDirectory(prefix="edgekd-job-") as folder:
        write_job(replace(job, module=plugins.load("targets", job.target).__name__), Path(folder))
        what = f"{job.target} {job.task}"
        return run_worker(Path(sys.executable), Path(folder), _environment(), log, facts, what)


def _environment() -> dict[str, str]:
    """Return this process's environment, with every folder from which it imports."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}

"""The executor protocol: runs jobs in this process, a child process, a vendor virtualenv or on a board."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekd.board.job import Job, Json, Progress
from edgekd.board.session import Session
from edgekd.board.sysinfo import Facts
from edgekd.core.artifact import Artifact


def no_progress(what: str, fraction: float) -> None:
    """Ignore progress."""


def absolute(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the files of a job for a process of this machine that works in another folder."""
    return {name: str(path.absolute()) for name, path in files.items()}


@dataclass(frozen=True)
class Identity:
    """The machine that an engine or a latency belongs to (JSON-ready).

    hardware: the machine that a machine-specific engine is compiled for.
    use: other facts that latency depends on: the cores that the process may use, the power mode.
    runtimes: distribution -> version of the runtimes that are installed; None for the others.
    """

    hardware: Facts
    use: Facts
    runtimes: dict[str, str | None]


class Executor(Protocol):
    """Builds, runs and measures engines in this process, a child, a vendor virtualenv or on a board."""

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job and return the value of its result.

        Args:
            job: the task, its target and its arguments.
            files: the host's files that the job reads, by the names that its arguments use.
            out_dir: existing folder of the host for the files that the job writes.
            log: file of the host for what the job prints.
            progress: called while the job runs, if the executor can see its progress.

        Raises:
            TargetError: the target refuses, or the job gave no result that can be trusted.
            WorkspaceError: the disk is full.
        """

    def open_session(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Return the context manager of a session on a checkpoint, an ONNX file or an engine.

        Raises:
            ArtifactError: the artifact holds no network.
            TargetError: its runtime is not installed there, or refuses the engine.
        """

    def identity(self) -> Identity:
        """Return the machine that this executor's engines and latencies belong to."""

    def facts(self) -> Facts:
        """Return the machine's `environment` (hardware and system) and `state` (clocks, temperatures, load)."""

"""The executor of a board, by the name that an engine has it under."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.job import Job, Json
from edgekd.board.session import Session
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import LOCAL, Engine
from edgekd.errors import RecipeError
from edgekd.executors.base import Executor
from edgekd.executors.local import Local


def executor_of(board: str) -> Executor:
    """Return the executor of a board; RecipeError when there is none."""
    if board != LOCAL:
        raise RecipeError(f"board {board!r}: this edgekd reaches no board but {LOCAL!r}, this machine")
    return Local()


def board_of(artifact: Artifact) -> str:
    """Return the board that an artifact's engine is for; this machine for networks and graphs."""
    return str(artifact.details.get("board", LOCAL))


def open_session(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return the context manager of a session on an artifact, on the board that it is for; errors as `Executor`."""
    return executor_of(board_of(artifact)).open_session(artifact)


def why_not_here(engine: Engine) -> str:
    """Return why an engine's board cannot run it, "" when it can."""
    return str(
        ask(engine.board, Job("why_not_here", engine.target, {"options": asdict(engine.target_options)}))["reason"]
    )


def ask(board: str, job: Job) -> Json:
    """Do a job that reads and writes no files, and return its value; errors as `Executor.run_job`."""
    with TemporaryDirectory(prefix="edgekd-ask-") as folder:
        return executor_of(board).run_job(job, {}, Path(folder), Path(folder) / "log.txt")

"""The executor of a board, by the name that an engine has it under."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.job import Job
from edgekd.board.session import Session
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import LOCAL
from edgekd.core.recipe_loading import plugin_options
from edgekd.errors import RecipeError
from edgekd.executors.base import Executor, JobValue
from edgekd.executors.local import Local


def executor_of(board: str) -> Executor:
    """Return the executor of a board; RecipeError when there is none."""
    if board != LOCAL:
        raise RecipeError(f"board {board!r}: this edgekd reaches no board but {LOCAL!r}, this machine")
    return Local()


def open_session(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return the context manager of a session on an artifact, on the board that it is for; errors as `Executor`."""
    return executor_of(artifact.details.get("board", LOCAL)).open_session(artifact)


def why_not_here(target: str, options: Mapping[str, Any], board: str = LOCAL) -> str:
    """Return why a board cannot run engines of a target with a recipe's options, "" when it can."""
    typed = plugin_options("targets", target, options, "options")
    return str(ask(board, Job("why_not_here", target, {"options": asdict(typed)}))["reason"])


def ask(board: str, job: Job) -> JobValue:
    """Do a job that reads and writes no files, and return its value; errors as `Executor.run_job`."""
    with TemporaryDirectory(prefix="edgekd-ask-") as folder:
        return executor_of(board).run_job(job, {}, Path(folder), Path(folder) / "log.txt")

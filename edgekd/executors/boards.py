"""The executor of a board, by the name that an engine has it under."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.job import Job, Json
from edgekd.board.session import Session
from edgekd.core.artifact import Artifact
from edgekd.core.inventory import Inventory, load_inventory
from edgekd.core.recipe import LOCAL, Engine
from edgekd.executors.base import Executor
from edgekd.executors.local import Local
from edgekd.executors.ssh.board import SshBoard


class _Boards:
    """The boards of one inventory, each reached over one connection."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._executors: dict[str, SshBoard] = {}

    def executor(self, name: str) -> SshBoard:
        """Return the executor of a board; RecipeError when the inventory lacks it."""
        if name not in self._executors:
            self._executors[name] = SshBoard(self._inventory.board(name))
        return self._executors[name]

    def close(self) -> None:
        """End the connections."""
        for executor in self._executors.values():
            executor.close()


_connected: ContextVar[_Boards | None] = ContextVar("_connected", default=None)


@contextmanager
def connected(beside: Path | None = None) -> Iterator[None]:
    """Use one inventory and one connection for each board within this block; a block inside another one uses that one's.

    Args:
        beside: folder of the recipe, see `load_inventory`.

    Raises:
        RecipeError: the inventory cannot be read.
    """
    if _connected.get() is not None:
        yield
        return
    boards = _Boards(load_inventory(beside))
    before = _connected.set(boards)
    try:
        yield
    finally:
        _connected.reset(before)
        boards.close()


def executor_of(board: str) -> Executor:
    """Return the executor of a board; RecipeError when the inventory in use lacks it."""
    if board == LOCAL:
        return Local()
    return (_connected.get() or _Boards(load_inventory())).executor(board)


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

"""Executors of boards by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.arguments import AskedEngine, WhyNotHereArguments
from edgekd.board.job import Job, Json
from edgekd.board.session import Session
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.inventory import Inventory, load_inventory
from edgekd.core.recipe import LOCAL, Engine
from edgekd.executors.answers import texts_of
from edgekd.executors.base import Executor
from edgekd.executors.local import Local
from edgekd.executors.ssh.board import SshBoard


class _Boards:
    """The boards of one inventory, one connection each, and cached reasons why they cannot run engines."""

    def __init__(self, inventory: Inventory) -> None:
        self.reasons: dict[tuple[str, str], str] = {}
        self._inventory = inventory
        self._executors: dict[str, SshBoard] = {}

    def executor(self, name: str) -> SshBoard:
        """Return the executor of a board; RecipeError if the inventory has no such board."""
        if name not in self._executors:
            self._executors[name] = SshBoard(self._inventory.board(name))
        return self._executors[name]

    def chip(self, name: str) -> str | None:
        """Return the chip of a board as the inventory names it; RecipeError when it lacks the board."""
        return self._inventory.board(name).chip

    def close(self) -> None:
        """End the connections."""
        for executor in self._executors.values():
            executor.close()


_connected: ContextVar[_Boards | None] = ContextVar("_connected", default=None)


@contextmanager
def connected(beside: Path | None = None) -> Iterator[None]:
    """Use one inventory and one connection per board within this block; a nested block uses the outer one's.

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
    """Return the executor of a board; RecipeError if the inventory in use has no such board."""
    if board == LOCAL:
        return Local()
    return (_connected.get() or _Boards(load_inventory())).executor(board)


def chip_of(board: str) -> str | None:
    """Return the chip that the inventory in use names for a board, None where it names none; the board is not asked.

    Raises:
        RecipeError: the inventory lacks the board.
    """
    return (_connected.get() or _Boards(load_inventory())).chip(board)


def prepare(board: str) -> None:
    """Wait until a board is quiet, at most as long as the inventory says; no wait for this machine.

    Raises:
        BoardError: the board does not have the power mode or the clocks that the inventory expects.
    """
    executor = executor_of(board)
    if isinstance(executor, SshBoard):
        executor.prepare()


def confirm(board: str, state: object) -> list[str]:
    """Return the disturbances of a measurement, in words; [] for this machine.

    Args:
        board: where it was measured.
        state: state of the board `before` and `after`, as the measurement's job reports it.

    Raises:
        BoardError: the board has changed since `prepare`, or was not as the inventory expects.
    """
    executor = executor_of(board)
    return executor.confirm(state) if isinstance(executor, SshBoard) else []


def board_of(artifact: Artifact) -> str:
    """Return the board of an artifact's engine; `local` for networks and graphs."""
    return str(artifact.details.get("board", LOCAL))


def open_session(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return the context manager of a session on an artifact, on the board that it is for; errors as `Executor`."""
    return executor_of(board_of(artifact)).open_session(artifact)


def machine_on(board: str) -> Facts:
    """Return a board's machine for the report (JSON): `identity` and `environment`; errors as `Executor`."""
    executor = executor_of(board)
    return {"identity": asdict(executor.identity()), "environment": executor.facts()["environment"]}


def why_not_here(engine: Engine) -> str:
    """Return why an engine's board cannot run it, "" when it can; errors as `Executor.run_job`."""
    return why_not_there([engine])[engine.id]


def why_not_there(engines: Iterable[Engine]) -> dict[str, str]:
    """Return why its board cannot run it for each engine, by id, "" where it can; a board is asked once about an engine.

    Raises:
        BoardError: a board cannot be reached; errors as `Executor.run_job`.
    """
    engines = list(engines)
    found: dict[str, str] = {}
    for board in dict.fromkeys(engine.board for engine in engines):
        there = [engine for engine in engines if engine.board == board]
        reasons = ask_why_not(board, [(engine.target, engine.target_options) for engine in there])
        found |= {engine.id: reason for engine, reason in zip(there, reasons, strict=True)}
    return found


def ask_why_not(board: str, engines: Sequence[tuple[str, Any]]) -> list[str]:
    """Return why a board cannot run each engine, a pair of target and options (None: any), "" where it can.

    On a board, a missing runtime is a reason. On this machine it is not: opening the engine raises that error.
    """
    asked: list[AskedEngine] = [
        {
            "module": plugins.load("targets", target).__name__,
            "options": None if options is None else asdict(options),
        }
        for target, options in engines
    ]
    boards = _connected.get()
    known = boards.reasons if boards is not None and board != LOCAL else {}
    keys = [(board, repr(one)) for one in asked]
    new = [one for one, key in zip(asked, keys, strict=True) if key not in known]
    if new:
        arguments: WhyNotHereArguments = {"engines": new, "needs_runtime": board != LOCAL}
        reasons = texts_of(ask(board, Job("why_not_here", "", arguments)), "reasons", len(new))
        known |= {(board, repr(one)): reason for one, reason in zip(new, reasons, strict=True)}
    return [known[key] for key in keys]


def ask(board: str, job: Job) -> Json:
    """Do a job that reads and writes no files, and return its value; errors as `Executor.run_job`."""
    with TemporaryDirectory(prefix="edgekd-ask-") as folder:
        return executor_of(board).run_job(job, {}, Path(folder), Path(folder) / "log.txt")

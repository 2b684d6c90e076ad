"""Functions of `edgekd board`: add, list, examine, clean and remove boards of the inventory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.inventory import Board, add_board, check_new, load_inventory, remove_board
from edgekd.core.recipe_loading import validate
from edgekd.errors import EdgekdError
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.ssh.checks import BoardCheck, checks_of
from edgekd.executors.ssh.doctor import examine


@dataclass(frozen=True)
class AddedBoard:
    """A new board: its inventory entry, the inventory's file, and the checks of its probe."""

    board: Board
    file: Path
    checks: list[BoardCheck]


@dataclass(frozen=True)
class BoardRow:
    """A board of the inventory as it is now (JSON-ready).

    runtimes: package -> installed version.
    state: `free`, `held by ...`, or why it cannot be reached.
    """

    name: str
    ssh: str
    chip: str | None
    runtimes: dict[str, str]
    state: str


def add(name: str, destination: str, folder: str | None = None, python: str | None = None) -> AddedBoard:
    """Probe a board and write it into the inventory with the detected chip.

    Raises:
        RecipeError: the name is taken or invalid, or the destination is invalid.
        BoardError: it cannot be reached; nothing is written.
    """
    given = {"name": name, "ssh": destination, "folder": folder, "python": python}
    wanted = {key: value for key, value in given.items() if value is not None}
    board = validate(Board, wanted, f"board {name!r}")
    check_new(name)
    with _executor(board) as executor:
        probed = executor.probe()
    if probed.chip is not None:
        wanted["chip"] = probed.chip
    if python is None and probed.python not in ("", board.python):
        wanted["python"] = probed.python
    board = validate(Board, wanted, f"board {name!r}")
    return AddedBoard(board, add_board(board), list(checks_of(board, probed)))


def overview() -> list[BoardRow]:
    """Return a row for each board of the inventory in use; the boards are asked in parallel."""
    boards = list(load_inventory().values())
    with ThreadPoolExecutor(max_workers=max(1, len(boards))) as pool:
        return list(pool.map(_row, boards))


def doctor(name: str) -> list[BoardCheck]:
    """Return the checks of a board; RecipeError if the inventory has no such board."""
    board = load_inventory().board(name)
    with _executor(board) as executor:
        return examine(board, executor)


def remove(name: str, is_cleaned: bool) -> Path:
    """Take a board out of the inventory and return the inventory's file.

    Args:
        name: name of the board.
        is_cleaned: first delete edgekd's files on the board.

    Raises:
        RecipeError: no such board.
        BoardError: with `is_cleaned`: it cannot be reached, or a job runs there; it stays in the inventory.
    """
    board = load_inventory().board(name)
    if is_cleaned:
        with _executor(board) as executor:
            executor.clean()
    return remove_board(name)


def cancel(name: str) -> str:
    """End the job that holds a board and return its owner, "" if the board is free; errors as `doctor`, and BoardError."""
    with _executor(load_inventory().board(name)) as executor:
        return executor.cancel()


def _row(board: Board) -> BoardRow:
    with _executor(board) as executor:
        try:
            probed = executor.probe()
        except EdgekdError as exc:
            return BoardRow(board.name, board.ssh, board.chip, {}, str(exc).removeprefix(f"board {board.name}: "))
        state = f"held by {probed.holder}" if probed.holder else "free"
        return BoardRow(board.name, board.ssh, board.chip or probed.chip, probed.distributions, state)


@contextmanager
def _executor(board: Board) -> Iterator[SshBoard]:
    with closing(SshBoard(board)) as executor:
        yield executor

"""First contact with a board: its folder, and whether it has what every job needs."""

from __future__ import annotations

from edgekd.core.inventory import Board
from edgekd.errors import BoardError, TargetError
from edgekd.executors.ssh.client import Client

OLDEST_PYTHON = (3, 8)


def greet(client: Client, board: Board) -> str:
    """Return the absolute path of edgekd's folder on a board, which is made.

    Raises:
        BoardError: out of reach, or without a command that every job needs.
        TargetError: no Python, one that is too old, or one without numpy.
    """
    asked = [board.folder, board.python, *variables(board)]
    lines = client.insist(lambda: client.call('hello "$@"', *asked)).splitlines()
    words = [line.partition(" ") for line in lines]
    absent = [value for word, _, value in words if word == "lacks"]
    if absent:
        raise BoardError(
            f"board {board.name}: no command {', '.join(absent)} there; install it (Debian: coreutils, util-linux, findutils, tar)"
        )
    said = {word: value for word, _, value in words}
    _check_python(board, said.get("python", "").split())
    return said["folder"]


def variables(board: Board) -> list[str]:
    """Return the environment of a board's jobs as `NAME=VALUE`."""
    return [f"{name}={value}" for name, value in board.environment.items()]


def _check_python(board: Board, said: list[str]) -> None:
    """Check what `hello` printed of the interpreter: `3 8 True`, the last for numpy."""
    where = f"board {board.name}: {board.python}"
    other = "or name another interpreter as `python` in the inventory"
    if len(said) < 2:
        raise TargetError(
            f"{where}: no Python there; install Python 3.8 or newer (apt install python3 python3-numpy), {other}"
        )
    version = int(said[0]), int(said[1])
    if version < OLDEST_PYTHON:
        raise TargetError(
            f"{where} is Python {version[0]}.{version[1]}; expected 3.8 or newer; install one beside it, {other}"
        )
    if said[2:] != ["True"]:
        raise TargetError(f"{where} has no numpy; install it (apt install python3-numpy), {other}")

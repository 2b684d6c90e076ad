"""First contact with a board: whether it has what every job needs, before anything is sent."""

from __future__ import annotations

from edgekd.core.inventory import Board
from edgekd.errors import BoardDiskError, BoardError, EdgekdError, TargetError
from edgekd.executors.ssh.checks import checks_of
from edgekd.executors.ssh.client import Client
from edgekd.executors.ssh.probe import Probed, probe

# Check that must pass -> the error when it does not. The store looks at the disk itself, by what it has to take.
_ERRORS: dict[str, type[EdgekdError]] = {
    "system": BoardError,
    "commands": BoardError,
    "python": TargetError,
    "numpy": TargetError,
    "chip": TargetError,
    "folder": BoardDiskError,
}


def greet(client: Client, board: Board) -> Probed:
    """Return the probe of a board that has what every job needs.

    Raises:
        BoardError: out of reach, not Linux, or without a command that every job needs.
        TargetError: another chip than the inventory's, no Python, one that is too old, or one without numpy.
        BoardDiskError: the folder cannot be written.
    """
    probed = probe(client, board)
    for check in checks_of(board, probed):
        if check.state == "wrong" and check.name in _ERRORS:
            remedy = f"; {check.remedy}" if check.remedy else ""
            raise _ERRORS[check.name](f"board {board.name}: {check.name}: {check.text}{remedy}")
    return probed

"""First contact with a board: checks the requirements of every job before anything is sent."""

from __future__ import annotations

from edgekd.core.inventory import Board
from edgekd.errors import BoardDiskError, BoardError, EdgekdError, TargetError
from edgekd.executors.ssh.checks import checks_of
from edgekd.executors.ssh.client import Client
from edgekd.executors.ssh.probe import Probed, probe

# Required check -> error class. The store checks free disk space itself, because it knows the size of the files.
_ERRORS: dict[str, type[EdgekdError]] = {
    "system": BoardError,
    "commands": BoardError,
    "python": TargetError,
    "numpy": TargetError,
    "chip": TargetError,
    "folder": BoardDiskError,
}


def greet(client: Client, board: Board) -> Probed:
    """Return the probe of a board that meets the requirements of every job.

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

"""Waits for a board that others use, and logs whose job it waits for."""

from __future__ import annotations

import logging
import time

from edgekd.errors import BoardError

log = logging.getLogger(__name__)


class Waiting:
    """The wait of one job for its board.

    Args:
        board: name.
        wait_s: longest wait.
    """

    def __init__(self, board: str, wait_s: float) -> None:
        self._board, self._wait_s = board, wait_s
        self._since: float | None = None
        self._last = ""

    def say(self, holder: str) -> None:
        """Log the holder of the board, once per holder."""
        if holder and holder != self._last:
            log.warning("board %s is in use by %s; waiting for it", self._board, holder)
        self._last = holder

    def go_on(self, holder: str) -> None:
        """Log the holder of the board; BoardError when the wait is over."""
        self.say(holder)
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > self._wait_s:
            raise self.over(holder)

    def over(self, holder: str) -> BoardError:
        """Return the error of a wait that is over."""
        return BoardError(
            f"board {self._board}: in use by {holder} for more than {self._wait_s:g} s; run the command again later, or end "
            f"that job: edgekd board cancel {self._board}"
        )

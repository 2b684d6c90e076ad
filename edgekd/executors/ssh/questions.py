"""Cached answers of a board to questions (`orders.QUESTIONS`), from this user's last run.

A board answers no question while a job runs there, because that would disturb a measurement. A restarted run whose own job
still runs uses the cached answers, so that it finds that job by its key and joins it.
"""

from __future__ import annotations

import json
from contextlib import suppress

from edgekd.board.files import cache_folder, write_atomic
from edgekd.board.job import Json

_FOLDER = "board-answers"


class Questions:
    """The answers of one board.

    Args:
        destination: destination of ssh.
        boot: id of the board's boot; answers from another boot are not used.
    """

    def __init__(self, destination: str, boot: str) -> None:
        self._asked = {"ssh": destination, "boot": boot}
        cache = cache_folder()
        self._folder = None if cache is None else cache / _FOLDER

    def answer(self, question: str) -> Json | None:
        """Return the last answer to a question, by its hash; None without one."""
        if self._folder is None:
            return None
        try:
            record = json.loads((self._folder / f"{question}.json").read_bytes())
        except (OSError, ValueError):
            return None
        value = record.get("value") if isinstance(record, dict) else None
        return value if isinstance(value, dict) and record == {**self._asked, "value": value} else None

    def keep(self, question: str, value: Json) -> None:
        """Keep an answer; a cache that cannot be written is left as it is."""
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomic(self._folder / f"{question}.json", json.dumps({**self._asked, "value": value}))

"""Reads a toolchain's log for messages: never for results."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

LOG = "toolchain.log"  # name of the file that a job's log is written to
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)")  # colours, cursor; titles, links
_MAX_LENGTH = 300


def printable(text: str) -> str:
    """Return a text of another machine as one line without control characters, which a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in _ESCAPES.sub("", text)).split())


def lines_with(log: Path, patterns: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """Return the lines in which one of the regular expressions is found, and none of `without`.

    Lines are without escape sequences, and cut to 300 characters.
    """
    wanted, unwanted = ([re.compile(pattern) for pattern in some] for some in (patterns, without))
    return [
        line[:_MAX_LENGTH]
        for line in _lines(log)
        if any(p.search(line) for p in wanted) and not any(p.search(line) for p in unwanted)
    ]


def last_lines(log: Path, count: int = 1) -> str:
    """Return the last lines that are not empty as one, cut to its last 300 characters; "" for an empty log."""
    return " ".join(deque(_lines(log), maxlen=count))[-_MAX_LENGTH:]


def _lines(log: Path) -> Iterator[str]:
    """Yield the lines that are not empty, without escape sequences; a carriage return ends a line, as in progress bars."""
    with open(log, encoding="utf-8", errors="replace", newline=None) as file:  # None: \r and \r\n are \n
        for line in file:
            if text := printable(line):
                yield text

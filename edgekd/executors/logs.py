"""Reads a toolchain's log for messages: never for results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LONGEST = 300


def lines_with(log: Path, patterns: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """Return the lines in which one of the regular expressions is found, and none of `without`.

    Lines are without colours, and cut to 300 characters.
    """
    wanted, unwanted = ([re.compile(pattern) for pattern in some] for some in (patterns, without))
    return [
        line[:_LONGEST]
        for line in _lines(log)
        if any(p.search(line) for p in wanted) and not any(p.search(line) for p in unwanted)
    ]


def last_line(log: Path) -> str:
    """Return the last line with something on it, cut to its last 300 characters; "" for an empty log."""
    last = ""
    for last in _lines(log):  # noqa: B007 - the last one is wanted
        pass
    return last[-_LONGEST:]


def _lines(log: Path) -> Iterator[str]:
    """Yield the lines that are not empty; a carriage return ends one too, as progress bars use it."""
    with open(log, encoding="utf-8", errors="replace", newline=None) as file:  # None: \r and \r\n are \n
        for line in file:
            text = " ".join(_COLOURS.sub("", line).split())
            if text:
                yield text

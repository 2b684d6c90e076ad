"""Findings about a data set: each is one cause with a count and the first file, an error or a warning."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Finding:
    """One fault or suspicion about a data set.

    code: its kind, stable between versions: `palette_order`, `small_objects`.
    is_error: whether a run refuses the data.
    text: one line for a reader, with the count and the first file.
    count: number of affected images, objects or classes.
    first: the first affected image or class, "" without one.
    """

    code: str
    is_error: bool
    text: str
    count: int = 1
    first: str = ""


def error(code: str, text: str, count: int = 1, first: str = "") -> Finding:
    """Return a finding for which a run refuses the data."""
    return Finding(code, True, text, count, first)


def warning(code: str, text: str, count: int = 1, first: str = "") -> Finding:
    """Return a finding that does not stop a run."""
    return Finding(code, False, text, count, first)


def grouped_errors(errors: Iterable[tuple[str, str]]) -> list[Finding]:
    """Group errors of single files by cause; return one finding per cause, in order of first occurrence.

    Messages have one cause if they differ only in numbers, in the file's name, and in the text before the first
    colon (the location).

    errors: the file's name, "" where it is not known, and the message of each.
    """
    causes: dict[str, list[tuple[str, str]]] = {}
    for name, text in errors:
        causes.setdefault(_cause(text, name), []).append((name, text))
    return [
        error("unreadable", text + (f" ({len(alike) - 1} more like this)" if len(alike) > 1 else ""), len(alike), name)
        for alike in causes.values()
        for name, text in alike[:1]
    ]


def _cause(text: str, name: str) -> str:
    place, colon, said = text.partition(": ")
    said = said if colon else place
    return _NUMBER.sub("#", said.replace(PurePath(name).name, "*") if name else said)

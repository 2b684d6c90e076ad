"""The table of sensors (`table.json`): where they are, what they are called, their units and sources.

It is data because only names and paths differ between chips. Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple


@dataclass(frozen=True)
class FileEntry:
    """Sensors that are files; the fields are described at the head of `table.json`."""

    quantity: str
    folders: str
    file: str
    source: str
    scale: float
    name: str = "{label}"
    label: Tuple[str, ...] = ()
    unlabelled: str = "{folder}"
    only: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""
    times: str = ""
    pattern: str = r"^(-?\d+)$"
    base: int = 10
    wraps: str = ""
    slow: bool = False
    group: str = ""
    low: Optional[float] = None
    high: Optional[float] = None


@dataclass(frozen=True)
class ToolEntry:
    """Sensors that a tool prints.

    patterns: regular expressions with one group, the value, or two, name and value. Values of several patterns are
        multiplied by name; a name that not all of them have is no sensor.
    instead_of: file with the same values; the tool is not run where it is readable.
    """

    command: Tuple[str, ...]
    quantity: str
    patterns: Tuple[str, ...]
    source: str
    name: str = ""
    base: int = 10
    group: str = ""
    instead_of: str = ""


@dataclass(frozen=True)
class MeterEntry:
    """Power or energy of a group of rails: the rail `total` if there is one, else the sum of the `rails`.

    is_alone: each rail is a separate meter.
    scope, sum_scope: what the one and the other cover, in words.
    """

    group: str
    total: str
    rails: str
    scope: str
    sum_scope: str
    is_alone: bool = False


@dataclass(frozen=True)
class VersionEntry:
    """Version of a driver or a library: the groups of `pattern` in the first of `files` that has it, joined by dots."""

    name: str
    files: Tuple[str, ...]
    pattern: str
    source: str


@dataclass(frozen=True)
class Table:
    """Content of `table.json`.

    flags: bit -> meaning. locked: regular expression of clocks that a measurement wants locked, beside the CPU's.
    cores: implementer -> part -> name, as `/proc/cpuinfo` and MIDR_EL1 have them.
    """

    files: Tuple[FileEntry, ...]
    tools: Tuple[ToolEntry, ...]
    meters: Tuple[MeterEntry, ...]
    versions: Tuple[VersionEntry, ...]
    flags: Mapping[int, str]
    locked: str
    cores: Mapping[str, Mapping[str, str]]


@lru_cache(maxsize=None)
def table() -> Table:
    """Return the table of sensors."""
    data: Dict[str, Any] = json.loads((Path(__file__).parent / "table.json").read_text(encoding="utf-8"))
    return Table(
        files=tuple(FileEntry(**_with_tuples(entry)) for entry in data["files"]),
        tools=tuple(ToolEntry(**_with_tuples(entry)) for entry in data["tools"]),
        meters=tuple(MeterEntry(**entry) for entry in data["meters"]),
        versions=tuple(VersionEntry(**_with_tuples(entry)) for entry in data["versions"]),
        flags={int(bit): meaning for bit, meaning in data["flags"].items()},
        locked=data["locked"],
        cores={name: parts for name, parts in data["cores"].items() if name != "source"},
    )


def _with_tuples(entry: Dict[str, Any]) -> Dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}

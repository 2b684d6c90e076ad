"""The sensors of a machine: every one of `table.json` that can be read, by name and label, never by index.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Dict, Iterator, List, Optional, Set, Tuple, Type, Union

from edgekd.board.sensors.sources import Channel, FileSource, ToolSource
from edgekd.board.sensors.table import FileEntry, ToolEntry, table
from edgekd.board.system_files import glob_paths, read_text

Source = Union[FileSource, ToolSource]


class Sensors:
    """The readable sensors of a machine, open until `close`.

    channels: in the order of `read`'s values.
    unreadable: name -> why. Sensors that the machine has and that this user may not read, tools that print nothing, and
        by quantity that there is none at all.
    """

    def __init__(self, root: str = "/") -> None:
        self.sources: List[Source] = []
        self.unreadable: Dict[str, str] = {}
        base, taken = Path(root), set()  # type: Path, Set[str]
        for entry in table().files:
            for place in _places(base, entry):
                self._add_file(entry, place, root, taken)
        for tool in table().tools:
            self._add_tool(tool, base, root)
        debug = base / "sys/kernel/debug"
        if debug.is_dir() and not os.access(str(debug), os.R_OK | os.X_OK):
            self.unreadable["debugfs"] = "/sys/kernel/debug: root only; memory clock and NPU load may be there"
        have = {channel.quantity for channel in self.channels}
        for quantity in dict.fromkeys(entry.quantity for entry in table().files):
            if quantity not in have:
                self.unreadable[quantity] = self._why_none(quantity)

    @property
    def channels(self) -> Tuple[Channel, ...]:
        """All sensors."""
        return tuple(channel for source in self.sources for channel in source.channels)

    def read(self) -> Dict[str, Optional[float]]:
        """Return key -> value of all sensors."""
        values: Dict[str, Optional[float]] = {}
        for source in self.sources:
            values.update((channel.key, value) for channel, value in zip(source.channels, source.read()))  # noqa: B905 - Python 3.8
        return values

    def close(self) -> None:
        """Close all files."""
        for source in self.sources:
            source.close()

    def __enter__(self) -> Sensors:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _add_file(self, entry: FileEntry, place: _Place, root: str, taken: Set[str]) -> None:
        channel = Channel(place.name, entry.quantity, entry.group, "/" + str(place.paths[0].relative_to(root)))
        number = 1
        while channel.key in taken:  # two zones of one type
            number += 1
            channel = replace(channel, name=f"{place.name} {number}")
        if entry.wraps:
            range_text = read_text(place.paths[0].parent / entry.wraps) or ""
            channel = replace(channel, wraps_at=int(range_text) * entry.scale if range_text.isdigit() else None)
        try:
            self.sources.append(FileSource(channel, entry, place.paths))
            taken.add(channel.key)
        except OSError as exc:
            self.unreadable[channel.key] = f"{channel.origin}: {_reason(exc)}"

    def _add_tool(self, entry: ToolEntry, base: Path, root: str) -> None:
        """Add a tool's sensors. In another root its tools are those of its folder `usr/bin`."""
        command = shutil.which(entry.command[0], path=None if root == "/" else str(base / "usr/bin"))
        if command is None or (entry.instead_of and read_text(base / entry.instead_of) is not None):
            return
        source = ToolSource([command, *entry.command[1:]], entry)
        if source.channels:
            self.sources.append(source)
        else:
            self.unreadable[" ".join(entry.command)] = "the tool prints no value; its user may need a group, e.g. video"

    def _why_none(self, quantity: str) -> str:
        refused = [why for key, why in self.unreadable.items() if key.startswith(f"{quantity}/")]
        if refused:
            return refused[0]
        places = dict.fromkeys(entry.folders for entry in table().files if entry.quantity == quantity)
        return f"nothing at {', '.join(f'/{place}' for place in places)}"


@dataclass(frozen=True)
class _Place:
    """Files of one sensor of an entry, and the name it has there."""

    name: str
    paths: Tuple[Path, ...]


def _places(base: Path, entry: FileEntry) -> Iterator[_Place]:
    for folder in glob_paths(base, entry.folders):
        if any(re.search(pattern, read_text(folder / name) or "") is None for name, pattern in entry.only.items()):
            continue
        matches = [(name, re.fullmatch(entry.file, name)) for name in _names(folder)]
        for name, match in matches:
            if match is None:
                continue
            number = match.group(1) if match.groups() else ""
            label = _label(folder, entry, number)
            second = folder / entry.times.format(n=number) if entry.times else None
            if (entry.skip and re.search(entry.skip, label)) or (second is not None and not second.exists()):
                continue
            device = read_text(folder / "name") or folder.name
            text = entry.name.format(
                label=label, folder=folder.name, parent=folder.parent.name, n=number, device=device
            )
            yield _Place(text, (folder / name,) if second is None else (folder / name, second))


def _label(folder: Path, entry: FileEntry, number: str) -> str:
    for name in entry.label:
        text = read_text(folder / name.format(n=number))
        if text:
            return text
    return entry.unlabelled.format(n=number, folder=folder.name)


def _names(folder: Path) -> List[str]:
    """Return the names in a folder in the order of the numbers in them; [] for one that cannot be listed."""
    try:
        names = os.listdir(str(folder))
    except OSError:
        return []
    return sorted(names, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))


def _reason(exc: OSError) -> str:
    return "root only" if isinstance(exc, PermissionError) else str(exc.strerror)

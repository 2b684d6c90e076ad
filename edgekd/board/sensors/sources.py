"""Sources of sensor values: files that stay open, and tools that print values.

A value that cannot be read now (EIO, EAGAIN, a block that is off) is None. Nothing is written.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from edgekd.board.sensors.table import FileEntry, ToolEntry

_MOST_BYTES = 4096
_TOOL_SECONDS = 5


@dataclass(frozen=True)
class Channel:
    """One sensor.

    name: unique within its quantity, e.g. `VDD_IN`.
    quantity: what its values are, with the unit: clock_mhz, clock_limit_mhz, load (fraction), temp_c, cooling_state,
        count (events since boot), flags (bits), power_w, energy_j and busy_s (both count up), memory_bytes.
    group: rails of one meter, "" for others.
    origin: file or command.
    wraps_at: value at which a counter begins at 0 again, in the unit.
    """

    name: str
    quantity: str
    group: str
    origin: str
    wraps_at: Optional[float] = None

    @property
    def key(self) -> str:
        """Quantity and name: `power_w/VDD_IN`."""
        return f"{self.quantity}/{self.name}"


class FileSource:
    """A sensor that is a file, or the product of two.

    The files stay open and are read from their beginning, as sysfs and debugfs allow.
    """

    def __init__(self, channel: Channel, entry: FileEntry, paths: Sequence[Path]) -> None:
        self.channels: Tuple[Channel, ...] = (channel,)
        self.is_slow = entry.slow
        self._entry, self._pattern = entry, re.compile(entry.pattern)
        self._descriptors: List[int] = []
        try:
            for path in paths:
                self._descriptors.append(os.open(str(path), os.O_RDONLY))
        except OSError:
            self.close()
            raise

    def read(self) -> List[Optional[float]]:
        """Return the value in the channel's unit."""
        product = self._entry.scale
        for descriptor in self._descriptors:
            number = self._number(descriptor)
            if number is None:
                return [None]
            product *= number
        entry = self._entry
        is_low = entry.low is not None and product < entry.low
        is_high = entry.high is not None and product > entry.high
        return [None if is_low or is_high else round(product, 9)]

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _number(self, descriptor: int) -> Optional[float]:
        try:
            text = os.pread(descriptor, _MOST_BYTES, 0).decode("utf-8", "replace").strip("\0\n ")
        except OSError:
            return None
        found = self._pattern.findall(text)
        return sum(int(digits, self._entry.base) for digits in found) / len(found) if found else None


class ToolSource:
    """Sensors that a tool prints. A process for every reading: at most one a second."""

    is_slow = True

    def __init__(self, command: Sequence[str], entry: ToolEntry) -> None:
        self._command, self._entry = list(command), entry
        self.channels: Tuple[Channel, ...] = ()
        text = " ".join(entry.command)
        self.channels = tuple(Channel(name, entry.quantity, entry.group, text) for name in self._values())

    def read(self) -> List[Optional[float]]:
        """Return the values in the channels' order; None for those that the tool does not print now."""
        values = self._values()
        return [values.get(channel.name) for channel in self.channels]

    def close(self) -> None:
        """Do nothing: no process is left."""

    def _values(self) -> Dict[str, float]:
        try:
            done = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_TOOL_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return {}
        text = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
        parts = [self._named(pattern, text) for pattern in self._entry.patterns]
        values = dict(parts[0])
        for part in parts[1:]:
            values = {name: round(value * part[name], 9) for name, value in values.items() if name in part}
        return values

    def _named(self, pattern: str, text: str) -> Dict[str, float]:
        matches = [match.groups() for match in re.finditer(pattern, text)]
        return {
            groups[0] if len(groups) > 1 else self._entry.name: _number(groups[-1], self._entry.base)
            for groups in matches
        }


def _number(digits: str, base: int) -> float:
    return float(digits) if base == 10 else float(int(digits, base))

"""Meters: groups of rails that together measure one power or energy, and what each group covers.

A rail and its parents are never added: a group uses its total if it has one, else the sum of its rails.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Tuple

from edgekd.board.sensors.sources import Channel
from edgekd.board.sensors.table import MeterEntry, table


@dataclass(frozen=True)
class Meter:
    """Power or energy of a machine, or of a part of it.

    name: its rails, e.g. `VDD_IN` or `VDD_GPU_SOC + VDD_CPU_CV`.
    channels: they are summed; all have one quantity, power_w or energy_j.
    scope: what it covers and what it leaves out, in words.
    """

    name: str
    channels: Tuple[Channel, ...]
    scope: str

    @property
    def is_counter(self) -> bool:
        """Whether the values count energy up."""
        return self.channels[0].quantity == "energy_j"


def meters(channels: Iterable[Channel]) -> List[Meter]:
    """Return the meters among a machine's sensors, the one that covers most first."""
    groups: Dict[Tuple[str, str], List[Channel]] = {}
    for channel in channels:
        if channel.quantity in ("power_w", "energy_j"):
            groups.setdefault((channel.group, channel.quantity), []).append(channel)
    found: List[Meter] = []
    for entry in table().meters:
        for quantity in ("power_w", "energy_j"):
            found += _meters_of(entry, groups.get((entry.group, quantity), []))
    return found


def _meters_of(entry: MeterEntry, rails: List[Channel]) -> List[Meter]:
    if not rails:
        return []
    total = [rail for rail in rails if re.search(entry.total, rail.name)]
    if total:
        return [Meter(total[0].name, (total[0],), entry.scope)]
    if entry.is_alone:
        return [Meter(rail.name, (rail,), entry.sum_scope) for rail in rails]
    summed = tuple(rail for rail in rails if re.search(entry.rails, rail.name))
    return [Meter(" + ".join(rail.name for rail in summed), summed, entry.sum_scope)] if summed else []

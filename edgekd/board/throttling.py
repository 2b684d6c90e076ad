"""Signs that a machine slowed itself down: falling limits, cooling, counters, flags, clocks below the locked one.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.sampling import Samples, SensorSeries
from edgekd.board.sensors.table import table

_STICKY = 16  # bits from here on say that the flag 16 below was set since boot: only a 0 -> 1 edge is of this run
_BELOW = 0.97  # a locked clock may be read a little off


@dataclass(frozen=True)
class Sign:
    """One sign of throttling: its time in ns of CLOCK_MONOTONIC, and what was seen, in words."""

    time_ns: int
    text: str


def signs(samples: Samples, stretch: Tuple[int, int], locked: Mapping[str, float]) -> List[Sign]:
    """Return the first sign of each sensor within a stretch, in the order of time.

    Args:
        samples: samples of a sampler.
        stretch: begin and end in ns.
        locked: clock -> MHz at which it is locked. At full load it is not below.
    """
    found = []
    for series in samples.series.values():
        look = _LOOKS.get(series.channel.quantity)
        within = series.between(*stretch)
        sign = look(within, locked) if look is not None and len(within.values) else None
        if sign is not None:
            found.append(sign)
    return sorted(found, key=lambda sign: sign.time_ns)


def events_between(before: Mapping[str, Optional[float]], after: Mapping[str, Optional[float]]) -> List[str]:
    """Return the throttling events between two snapshots, from the counters and flags in `readings`, in words.

    The processor's own throttle counts are left out: x86 has one for each core.
    """
    found = []
    for key, now in after.items():
        quantity, _, name = key.partition("/")
        was = before.get(key)
        if now is None or was is None:
            continue
        if quantity == "count" and now > was and not is_fan(name) and not name.startswith("throttle "):
            found.append(f"{name} rose from {was:.0f} to {now:.0f} during the run")
        elif quantity == "flags":
            found += [f"{name}: {text} during the run" for text in _meanings(_new_bits(int(was), int(now)))]
    return found


def is_fan(name: str) -> bool:
    """Whether a cooling device is a fan: it costs no speed."""
    return "fan" in name.lower()


def _limit_fell(series: SensorSeries, locked: Mapping[str, float]) -> Optional[Sign]:
    first = series.values[0]
    for time_ns, value in _pairs(series):
        if value < first:
            return Sign(time_ns, f"the highest clock of {series.channel.name} fell from {first:.0f} to {value:.0f} MHz")
    return None


def _below_lock(series: SensorSeries, locked: Mapping[str, float]) -> Optional[Sign]:
    limit = locked.get(series.channel.name)
    for time_ns, value in _pairs(series):
        if limit is not None and 0 < value < _BELOW * limit:
            return Sign(time_ns, f"{series.channel.name} ran at {value:.0f} MHz, locked at {limit:.0f}")
    return None


def _rose(series: SensorSeries, locked: Mapping[str, float]) -> Optional[Sign]:
    """Return the first rise of a cooling device's state or of a counter."""
    rises = np.flatnonzero(np.diff(series.values) > 0)
    if is_fan(series.channel.name) or not len(rises):
        return None
    at = int(rises[0]) + 1
    text = f"{series.channel.name} rose from {series.values[at - 1]:.0f} to {series.values[at]:.0f}"
    return Sign(int(series.times_ns[at]), f"cooling: {text}" if series.channel.quantity == "cooling_state" else text)


def _flagged(series: SensorSeries, locked: Mapping[str, float]) -> Optional[Sign]:
    """Return the first flag that is set, or that was set since the reading before."""
    before = int(series.values[0])
    for time_ns, value in _pairs(series):
        texts = _meanings(_new_bits(before, int(value)))
        if texts:
            return Sign(time_ns, f"{series.channel.name}: {', '.join(texts)}")
        before = int(value)
    return None


def _new_bits(before: int, now: int) -> int:
    """Return the bits that are set now, without the sticky ones that were set before."""
    return now & ~(before & ~((1 << _STICKY) - 1))


def _meanings(bits: int) -> List[str]:
    return [text for bit, text in table().flags.items() if bits & (1 << bit | 1 << bit + _STICKY)]


_LOOKS: Dict[str, Callable[[SensorSeries, Mapping[str, float]], Optional[Sign]]] = {
    "clock_limit_mhz": _limit_fell,
    "clock_mhz": _below_lock,
    "cooling_state": _rose,
    "count": _rose,
    "flags": _flagged,
}


def _pairs(series: SensorSeries) -> Iterator[Tuple[int, float]]:
    return zip(series.times_ns.tolist(), series.values.tolist())  # noqa: B905 - Python 3.8

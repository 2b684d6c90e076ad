"""Energy per frame of one engine, from a meter's values: idle, busy, idle.

Gross energy is all that the meter saw while the engine ran, net energy is that minus the idle power. The engine is open in all
three stretches. A figure within the noise is withheld, with the reason.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from edgekd.board.sampling import Samples, SensorSeries
from edgekd.board.sensors.meters import Meter, meters
from edgekd.board.timing import NS_PER_S

# A sensor with fewer different values in the busy stretch was averaged over it, or does not follow the load.
MIN_DISTINCT = 20
# The two idle powers differ; their difference, over the busy stretch, may be this fraction of the net energy.
MAX_IDLE_DIFFERENCE = 0.1


@dataclass(frozen=True)
class Stretches:
    """Begin and end of the stretches, in ns of CLOCK_MONOTONIC."""

    idle_before: Tuple[int, int]
    busy: Tuple[int, int]
    idle_after: Tuple[int, int]


@dataclass(frozen=True)
class Energy:
    """Energy per frame by one meter (JSON-ready).

    meter, scope: its rails, and what they cover and leave out.
    method: `trapezoid` of power values, or `counter`.
    gross_mj, net_mj: per frame; None with a `reason`.
    idle_before_w, busy_w, idle_after_w: mean powers; None for a stretch with fewer than two values.
    uncertainty: difference of the idle powers over the busy stretch, as a fraction of the net energy.
    distinct: number of different values in the busy stretch, for the rail that has most.
    """

    meter: str
    scope: str
    method: str
    gross_mj: Optional[float]
    net_mj: Optional[float]
    reason: str
    idle_before_w: Optional[float]
    busy_w: Optional[float]
    idle_after_w: Optional[float]
    uncertainty: Optional[float]
    frames: int
    seconds: float
    distinct: int


def energies(samples: Samples, stretches: Stretches, frames: int) -> List[Energy]:
    """Return the energy per frame by each meter of the machine, the one that covers most first."""
    found = meters(series.channel for series in samples.series.values())
    return [energy(meter, samples, stretches, frames) for meter in found]


def why_no_meter(samples: Samples) -> str:
    """Return why a machine has no power sensor, "" when it has one."""
    if meters(series.channel for series in samples.series.values()):
        return ""
    reasons = [samples.unreadable[key] for key in ("power_w", "energy_j") if key in samples.unreadable]
    return f"no power sensor readable: {'; '.join(reasons)}"


def energy(meter: Meter, samples: Samples, stretches: Stretches, frames: int) -> Energy:
    """Return the energy per frame by one meter."""
    rails = [samples.series[channel.key] for channel in meter.channels]
    before, busy, after = (
        _mean_power(rails, stretch) for stretch in (stretches.idle_before, stretches.busy, stretches.idle_after)
    )
    seconds = (stretches.busy[1] - stretches.busy[0]) / NS_PER_S
    distinct = max(len(np.unique(rail.between(*stretches.busy).values)) for rail in rails)
    net_w = uncertainty = None
    if before is not None and busy is not None and after is not None:
        net_w = busy - (before + after) / 2
        uncertainty = abs(after - before) / net_w if net_w > 0 else None
    reason = _reason(before is None or after is None, net_w, uncertainty, distinct)
    per_frame = 1000 * seconds / frames
    return Energy(
        meter=meter.name,
        scope=meter.scope,
        method="counter" if meter.is_counter else "trapezoid",
        gross_mj=None if reason or busy is None else busy * per_frame,
        net_mj=None if reason or net_w is None else net_w * per_frame,
        reason=reason,
        idle_before_w=before,
        busy_w=busy,
        idle_after_w=after,
        uncertainty=uncertainty,
        frames=frames,
        seconds=seconds,
        distinct=distinct,
    )


def _reason(is_idle_unknown: bool, net_w: Optional[float], uncertainty: Optional[float], distinct: int) -> str:
    """Return why there is no figure, or ""."""
    if distinct < MIN_DISTINCT:
        return f"{distinct} different values while the engine ran, {MIN_DISTINCT} are needed; measure longer"
    if is_idle_unknown or net_w is None:
        return "fewer than two values in a stretch; measure longer"
    if uncertainty is None:
        return f"the engine takes {1000 * net_w:.0f} mW more than idle, which is no measurable power"
    if uncertainty > MAX_IDLE_DIFFERENCE:
        return f"the idle powers before and after differ by {uncertainty:.0%} of the net power, more than {MAX_IDLE_DIFFERENCE:.0%}"
    return ""


def _mean_power(rails: List[SensorSeries], stretch: Tuple[int, int]) -> Optional[float]:
    """Return the mean power of all rails in watts: per rail, energy from its first to its last value over that time."""
    powers = [_power_of(rail.between(*stretch)) for rail in rails]
    known = [power for power in powers if power is not None]
    return sum(known) if len(known) == len(powers) else None


def _power_of(rail: SensorSeries) -> Optional[float]:
    if len(rail.values) < 2:
        return None
    times_s = (rail.times_ns - rail.times_ns[0]) / NS_PER_S
    if rail.channel.quantity == "energy_j":
        return _counted(rail) / float(times_s[-1])
    means = (rail.values[1:] + rail.values[:-1]) / 2
    return float(np.sum(means * np.diff(times_s)) / times_s[-1])


def _counted(rail: SensorSeries) -> float:
    """Return a counter's total increase; a step down is a wrap-around to 0."""
    steps = np.diff(rail.values)
    wraps = int(np.sum(steps < 0))
    return float(np.sum(steps)) + wraps * (rail.channel.wraps_at or 0.0)

"""Sustained latency: one engine back to back for minutes, beside clocks and temperatures.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.sampling import Samples, SensorSeries
from edgekd.board.throttling import signs
from edgekd.board.timing import NS_PER_MS, NS_PER_S, minimum_samples, percentile_nearest_rank

MINUTE = 60.0
STEADY_K_PER_MIN = 0.5  # a hottest zone that rises more slowly is at its end
_SHOWN = ("clock_mhz", "temp_c", "power_w", "load")  # sensors of the timeline


@dataclass(frozen=True)
class Runs:
    """Runs back to back: `starts_ns` and `samples_ns` (N,) int64, start times of CLOCK_MONOTONIC and durations."""

    starts_ns: np.ndarray
    samples_ns: np.ndarray

    @property
    def stretch(self) -> Tuple[int, int]:
        """Begin of the first and end of the last run."""
        return int(self.starts_ns[0]), int(self.starts_ns[-1] + self.samples_ns[-1])


@dataclass(frozen=True)
class Sustained:
    """Sustained latency of one engine (JSON-ready).

    seconds, runs: of the whole stretch.
    first_p50_ms, last_p50_ms, ratio: medians of the first and the last minute, and last over first. For a stretch shorter than
        two minutes: of its halves; `window_s` is their length.
    last_p99_ms: p99 of the last minute; None where its runs cannot carry it.
    throttled_after_s: from the begin to the first sign of throttling; None without one, or without sensors.
    signs: first sign of each sensor, in words.
    hottest: name of the zone that is hottest at the end; None without one that can be read, as the next three.
    start_c, end_c: its temperatures. slope_k_per_min: of a line through its last minute. is_steady: whether that is flat.
    cool_down: what was waited before, in words; "" when the first engine began.
    """

    seconds: float
    runs: int
    window_s: float
    first_p50_ms: float
    last_p50_ms: float
    last_p99_ms: Optional[float]
    ratio: float
    throttled_after_s: Optional[float]
    signs: List[str]
    hottest: Optional[str]
    start_c: Optional[float]
    end_c: Optional[float]
    slope_k_per_min: Optional[float]
    is_steady: Optional[bool]
    cool_down: str


@dataclass(frozen=True)
class Timeline:
    """Latency and sensors by the second (JSON-ready).

    second: (N,) begins of the seconds in which a run ended. p50_ms, p99_ms: of these runs; p99 is the slowest of fewer than
        100 runs, the only value that they have for it.
    sensors: `quantity/name` -> mean of each second of the stretch, None without a reading.
    """

    second: List[int]
    p50_ms: List[float]
    p99_ms: List[float]
    sensors: Dict[str, List[Optional[float]]]


def sustained(runs: Runs, samples: Samples, locked: Mapping[str, float], cool_down: str) -> Sustained:
    """Return the figures of one stretch.

    Args:
        runs: all runs of it.
        samples: samples of a sampler that ran beside it.
        locked: clock -> MHz at which it was locked before.
        cool_down: what was waited before, in words.
    """
    begin, end = runs.stretch
    seconds = (end - begin) / NS_PER_S
    window_s = min(MINUTE, seconds / 2)
    ends = runs.starts_ns + runs.samples_ns
    first = runs.samples_ns[ends <= begin + window_s * NS_PER_S]
    last = runs.samples_ns[runs.starts_ns >= end - window_s * NS_PER_S]
    first, last = (part if len(part) else runs.samples_ns for part in (first, last))  # runs longer than the window
    first_ms, last_ms = (percentile_nearest_rank(part, 50) / NS_PER_MS for part in (first, last))
    seen = signs(samples, (begin, end), locked)
    zone = _hottest(samples, (begin, end))
    slope = None if zone is None else _slope(zone.between(int(end - window_s * NS_PER_S), end))
    return Sustained(
        seconds=seconds,
        runs=len(runs.samples_ns),
        window_s=window_s,
        first_p50_ms=first_ms,
        last_p50_ms=last_ms,
        last_p99_ms=percentile_nearest_rank(last, 99) / NS_PER_MS if len(last) >= minimum_samples(99) else None,
        ratio=last_ms / first_ms,
        throttled_after_s=(seen[0].time_ns - begin) / NS_PER_S if seen else None,
        signs=[sign.text for sign in seen],
        hottest=zone.channel.name if zone else None,
        start_c=float(zone.values[0]) if zone else None,
        end_c=float(zone.values[-1]) if zone else None,
        slope_k_per_min=slope,
        is_steady=None if slope is None else abs(slope) < STEADY_K_PER_MIN,
        cool_down=cool_down,
    )


def timeline(runs: Runs, samples: Samples) -> Timeline:
    """Return latency and sensors of one stretch by the second."""
    begin, end = runs.stretch
    length = int((end - begin) // NS_PER_S) + 1
    at = ((runs.starts_ns + runs.samples_ns - begin) // NS_PER_S).astype(np.int64)
    seconds = np.unique(at)
    parts = [runs.samples_ns[at == second] for second in seconds]
    shown = [series for quantity in _SHOWN for series in samples.of(quantity)]
    return Timeline(
        second=seconds.tolist(),
        p50_ms=[percentile_nearest_rank(part, 50) / NS_PER_MS for part in parts],
        p99_ms=[percentile_nearest_rank(part, 99) / NS_PER_MS for part in parts],
        sensors={series.channel.key: _by_second(series.between(begin, end), begin, length) for series in shown},
    )


def _hottest(samples: Samples, stretch: Tuple[int, int]) -> Optional[SensorSeries]:
    zones = [zone.between(*stretch) for zone in samples.of("temp_c")]
    return max((zone for zone in zones if len(zone.values)), key=lambda zone: float(zone.values[-1]), default=None)


def _slope(zone: SensorSeries) -> Optional[float]:
    """Return the slope of a line through all readings in K per minute; None for fewer than three."""
    if len(zone.values) < 3:
        return None
    minutes = (zone.times_ns - zone.times_ns[0]) / NS_PER_S / MINUTE
    return float(np.polyfit(minutes, zone.values, 1)[0])


def _by_second(series: SensorSeries, begin: int, length: int) -> List[Optional[float]]:
    at = ((series.times_ns - begin) // NS_PER_S).astype(np.int64)
    counts = np.bincount(at, minlength=length)
    sums = np.bincount(at, weights=series.values, minlength=length)
    return [round(float(total) / int(count), 3) if count else None for total, count in zip(sums, counts)]  # noqa: B905 - Python 3.8

"""Speed of one engine relative to another: paired rounds of the interleaved bench, with a 95 % interval.

The rounds pair the engines' bursts, so a load that slows both for a while cancels. Latencies of two benches are never
compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

import numpy as np

from edgekd.board.timing import burst_medians, median_interval
from edgekd.report.latency import RatioInterval, SpeedRatio, Verdict
from edgekd.report.line import reference_of
from edgekd.report.model import Report, Row
from edgekd.report.units import ratio as as_ratio

Samples = Mapping[str, np.ndarray]  # of samples.npz, see board/bench_files.py


def speed_ratio(samples: Samples, row_id: str, other_id: str) -> SpeedRatio | None:
    """Return the speed of a row relative to another, from the rounds in which a bench measured both.

    None for rows without common rounds: of two boards, or in a file of an earlier edgekd.
    """
    found: dict[str, RatioInterval] = {}
    rounds = 0
    for series in ("wall", "engine"):
        own, other = (_round_medians(samples, f"{name}/{series}") for name in (row_id, other_id))
        if own is not None and other is not None and len(own) == len(other):
            found[series], rounds = _interval((other / own).tolist()), len(own)
    if not found:
        return None
    return SpeedRatio(against=other_id, rounds=rounds, wall=found.get("wall"), engine=found.get("engine"))


def _interval(ratios: list[float]) -> RatioInterval:
    low, high = median_interval(ratios)
    ends = [end if math.isfinite(end) else None for end in (low, high)]
    return RatioInterval(ratio=statistics.median(ratios), low=ends[0], high=ends[1])


def with_speeds(report: Report, samples: Samples) -> Report:
    """Return the report with the speed of each engine relative to the reference of its target and board."""
    rows = []
    for row in report.rows:
        reference = reference_of(report.rows, row.branch) if row.stage == "engine" else None
        speed = speed_ratio(samples, row.id, reference.id) if reference and reference.id != row.id else None
        rows.append(row.model_copy(update={"speed": speed}) if speed else row)
    return report.model_copy(update={"rows": rows})


def speed_verdict(speed: SpeedRatio, row: Row, other: Row) -> Verdict:
    """Return the verdict on a speed: that of the intervals if the machine was quiet for both rows, else `not decided`."""
    return speed.verdict if row.is_quiet and other.is_quiet else "not decided"


def speed_text(speed: SpeedRatio, row: Row, other: Row) -> str:
    """Return `speed_verdict` in words with the interval, e.g. `1.28× as fast (1.26 to 1.37)`."""
    first, verdict = speed.first, speed_verdict(speed, row, other)
    if first.ratio is None or first.low is None or first.high is None:
        return f"not decided: too few rounds for an interval ({speed.rounds})"
    interval = _ends(first)
    if verdict == "not decided":
        reason = "machine not quiet"
        if row.is_quiet and other.is_quiet:
            reason = "interval includes 1" if first.verdict == verdict else "engine times disagree"
        alone = f", engine alone {_ends(speed.engine)}×" if speed.wall and speed.engine else ""
        return f"not decided: {reason} ({interval}× the speed{alone})"
    if verdict == "same":
        return f"the same ({interval}×)"
    return f"{as_ratio(first.ratio)} {'as fast' if verdict == 'faster' else 'the speed: slower'} ({interval})"


def _ends(interval: RatioInterval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}"


def _round_medians(samples: Samples, name: str) -> np.ndarray | None:
    """Return the median run of each round, (R,) float64; None without the runs or the rounds."""
    runs, bursts = samples.get(f"{name}_ns"), samples.get(f"{name}_bursts")
    if runs is None or bursts is None or not bursts.size or not bursts.all():
        return None
    return burst_medians(runs, bursts)

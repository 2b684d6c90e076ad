"""95 % intervals of times, and of their changes between two runs.

Order statistics, for any distribution. A median has one figure per round of the bench; a higher percentile takes the
runs as independent. The ratio of two benches joins both intervals at 97.5 % each, so it holds for at least 95 %. Where a bench
warns that its machine was not quiet, the interval of a median holds the medians of all rounds.

Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2 (order statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekd.board.timing import median_interval
from edgekd.comparison.runs import Times
from edgekd.evaluate.intervals import CONFIDENCE, Interval


def time_interval(times: Times, percentile: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the interval of a percentile in milliseconds; None where the bench has too few rounds or runs."""
    if percentile == 50:
        low, high = median_interval(times.rounds_ms.tolist(), confidence)
    else:
        low, high = percentile_interval(times.samples_ms.tolist(), percentile, confidence)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    if percentile == 50 and not times.is_quiet:
        return float(times.rounds_ms.min()), float(times.rounds_ms.max())
    return low, high


def ratio_interval(old: Times, new: Times, percentile: int) -> Interval | None:
    """Return the interval of new / old, measured in two benches; None where one has too few rounds or runs."""
    each = 1 - (1 - CONFIDENCE) / 2
    before, after = time_interval(old, percentile, each), time_interval(new, percentile, each)
    return (after[0] / before[1], after[1] / before[0]) if before and after else None


def round_ratio_interval(old: Times, new: Times) -> Interval | None:
    """Return the interval of the median of new / old of each round of one bench; None with too few rounds."""
    if len(old.rounds_ms) != len(new.rounds_ms):
        return None
    low, high = median_interval((new.rounds_ms / old.rounds_ms).tolist(), CONFIDENCE)
    return (low, high) if math.isfinite(low) else None


def percentile_interval(values: Sequence[float], percentile: float, confidence: float) -> Interval:
    """Return an interval that holds a percentile of what independent values are drawn from, with this confidence.

    The ends are the r-th and the s-th smallest value with P(B < r) and P(B >= s) each at most half of what `confidence` leaves, for
    B of a binomial distribution (n, percentile / 100); infinite where the values cannot carry it.
    """
    count, share = len(values), percentile / 100
    k = range(count + 1)
    choose = math.lgamma(count + 1) - np.array([math.lgamma(i + 1) + math.lgamma(count - i + 1) for i in k])
    below = np.cumsum(np.exp(choose + np.array([i * math.log(share) + (count - i) * math.log1p(-share) for i in k])))
    tail = (1 - confidence) / 2
    first, last = int((below <= tail).sum()), int((below < 1 - tail).sum()) + 1
    ranked = sorted(values)
    return (ranked[first - 1] if first >= 1 else -math.inf, ranked[last - 1] if last <= count else math.inf)

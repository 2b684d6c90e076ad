"""Latency: one percentile definition, warm-up until steady, and interleaved measurement of several functions.

Percentiles are nearest-rank, like MLPerf's and benchmark_app's: a value that was measured, never an interpolation.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping

import numpy as np

Clock = Callable[[], int]

PERCENTILES = (50, 90, 95, 99)
# MLPerf's early stopping: with 99 % confidence at least one of n samples lies above the percentile (0 over-latency
# queries tolerated). Source: mlcommons/inference loadgen/early_stopping.cc.
CONFIDENCE = 0.99
# Two windows of this many runs whose medians agree within STEADY count as warmed up.
WARM_UP_WINDOW = 10
STEADY = 0.05
NS_PER_MS = 1e6


@dataclass(frozen=True)
class Series:
    """Raw runs of one function: `samples_ns` and `starts_ns` (N,) int64, durations and start times of one clock."""

    samples_ns: np.ndarray
    starts_ns: np.ndarray


@dataclass(frozen=True)
class WarmUp:
    """What happened before timing; `first_ns` is the first run, which may include lazy initialisation."""

    runs: int
    seconds: float
    is_steady: bool
    first_ns: int


@dataclass(frozen=True)
class Budget:
    """When a series is long enough: both limits must be met. `seconds` counts the measured runs only.

    burst: consecutive measured runs of one function before the next one's turn.
    discard: runs before each burst that are not kept; they refill caches and wake the runtime's threads.
    seed: of the order within each round.
    """

    min_samples: int = 500
    min_seconds: float = 3.0
    burst: int = 20
    discard: int = 2
    seed: int = 0


def minimum_samples(percentile: float) -> int:
    """Return how many samples a percentile needs: p90 44, p95 90, p99 459, p99.9 4603.

    The smallest n with (percentile / 100) ** n <= 1 - CONFIDENCE.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))


def percentile_nearest_rank(samples: np.ndarray, percentile: float) -> float:
    """Return the smallest sample such that at least `percentile` % of all samples are not above it.

    Raises:
        ValueError: no samples, or a percentile outside (0, 100].
    """
    if len(samples) == 0 or not 0 < percentile <= 100:
        raise ValueError(f"expected samples and 0 < percentile <= 100, got {len(samples)} samples, p{percentile}")
    rank = math.ceil(round(len(samples) * percentile / 100, 9))  # 1000 * 99.9 / 100 is a hair above 999
    return float(np.sort(samples)[rank - 1])


def summarize(samples_ns: np.ndarray) -> Dict[str, float]:
    """Return p50, p90, p95, p99, mean, std, min, max in milliseconds and the count n.

    A percentile that the number of samples cannot carry (`minimum_samples`) is absent; p50 never is.
    """
    values = np.asarray(samples_ns, dtype=np.float64) / NS_PER_MS
    summary = {
        f"p{p}": percentile_nearest_rank(values, p) for p in PERCENTILES if p == 50 or len(values) >= minimum_samples(p)
    }
    moments = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    summary.update({name: float(value) for name, value in moments.items()})
    summary["n"] = len(values)
    return summary


def coefficient_of_variation(samples_ns: np.ndarray) -> float:
    """Return standard deviation over mean, a fraction."""
    return float(np.std(samples_ns) / np.mean(samples_ns))


def drift(samples_ns: np.ndarray) -> float:
    """Return the median of the last third over that of the first third, minus 1: positive means it became slower."""
    third = max(1, len(samples_ns) // 3)
    return float(np.median(samples_ns[-third:]) / np.median(samples_ns[:third]) - 1)


def warm_up(
    function: Callable[[], object], max_seconds: float, min_runs: int = 20, clock: Clock = time.perf_counter_ns
) -> WarmUp:
    """Run until two windows agree within STEADY: at least `min_runs` runs, at most `max_seconds` seconds."""
    start = clock()
    durations: List[int] = []
    while True:
        began = clock()
        function()
        ended = clock()
        durations.append(ended - began)
        is_steady = len(durations) >= min_runs and _is_steady(durations)
        seconds = (ended - start) / 1e9
        if is_steady or seconds >= max_seconds:
            return WarmUp(len(durations), seconds, is_steady, durations[0])


def measure_interleaved(
    functions: Mapping[str, Callable[[], object]], budget: Budget, clock: Clock = time.perf_counter_ns
) -> Dict[str, Series]:
    """Time several functions in alternating bursts, so that all see the same machine and their ratios are fair.

    Every round gives each function that is not done one burst, in an order drawn anew from `budget.seed`.
    """
    order = random.Random(budget.seed)
    samples: Dict[str, List[int]] = {name: [] for name in functions}
    starts: Dict[str, List[int]] = {name: [] for name in functions}
    totals = dict.fromkeys(functions, 0)
    while True:
        names = [n for n in functions if len(samples[n]) < budget.min_samples or totals[n] < budget.min_seconds * 1e9]
        if not names:
            return {n: Series(np.array(samples[n], np.int64), np.array(starts[n], np.int64)) for n in functions}
        order.shuffle(names)
        for name in names:
            totals[name] += _burst(functions[name], budget, samples[name], starts[name], clock)


def _burst(function: Callable[[], object], budget: Budget, samples: List[int], starts: List[int], clock: Clock) -> int:
    for _ in range(budget.discard):
        function()
    total = 0
    for _ in range(budget.burst):
        began = clock()
        function()
        duration = clock() - began
        starts.append(began)
        samples.append(duration)
        total += duration
    return total


def _is_steady(durations: List[int]) -> bool:
    if len(durations) < 2 * WARM_UP_WINDOW:
        return False
    before = float(np.median(durations[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW]))
    after = float(np.median(durations[-WARM_UP_WINDOW:]))
    return abs(after - before) <= STEADY * before

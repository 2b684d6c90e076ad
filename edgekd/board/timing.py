"""Latency: one percentile definition, warm-up until steady, and interleaved measurement of several functions.

Percentiles are nearest-rank, like MLPerf's and benchmark_app's: a value that was measured, never an interpolation.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Tuple

import numpy as np

Clock = Callable[[], int]

PERCENTILES = (50, 90, 95, 99)
# MLPerf's early stopping: with 99 % confidence at least one of n samples lies above the percentile (0 over-latency
# queries tolerated). Source: mlcommons/inference loadgen/early_stopping.cc.
CONFIDENCE = 0.99
# Two windows of this many runs whose medians agree within STEADY count as warmed up; smaller ones, down to the second
# number, where the time limit leaves no more runs. Not before trtexec's 200 ms (`--warmUp`): clocks take as long to rise.
WARM_UP_WINDOW, SMALLEST_WINDOW = 10, 3
WARM_UP_SECONDS = 0.2
STEADY = 0.05
NS_PER_MS, NS_PER_S = 1e6, 1e9


@dataclass(frozen=True)
class Series:
    """Raw runs of one function: `samples_ns` and `starts_ns` (N,) int64, durations and start times of one clock."""

    samples_ns: np.ndarray
    starts_ns: np.ndarray


@dataclass(frozen=True)
class WarmUp:
    """The warm-up before timing; `first_ns` is the first run, which may include lazy initialisation."""

    runs: int
    seconds: float
    is_steady: bool
    first_ns: int


@dataclass(frozen=True)
class Budget:
    """When a series is long enough: `min_samples` and `min_seconds` of measured runs must both be met.

    burst_seconds, burst_runs: consecutive measured runs of one function before the next one's turn, at least both.
    discard_seconds, discard_runs: what runs before each burst and is not kept, at least both: caches refill, the
        runtime's threads wake, and those of the function before go to sleep. ONNX Runtime's spin on for some 60 ms after
        a run; engines measured within that time took up to 25 % longer.
    seed: of the order within each round.
    """

    min_samples: int = 500
    min_seconds: float = 3.0
    burst_seconds: float = 0.2
    burst_runs: int = 5
    discard_seconds: float = 0.1
    discard_runs: int = 1
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


def warm_up(function: Callable[[], object], max_seconds: float, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Run until two windows agree within STEADY, or for `max_seconds`, and then long enough for two small windows."""
    start = clock()
    durations: List[int] = []
    while True:
        began = clock()
        function()
        ended = clock()
        durations.append(ended - began)
        seconds = (ended - start) / NS_PER_S
        is_last = seconds >= max_seconds
        window = min(WARM_UP_WINDOW, len(durations) // 2) if is_last else WARM_UP_WINDOW
        if window < SMALLEST_WINDOW or len(durations) < 2 * window:
            continue
        is_steady = _is_steady(durations, window)
        if is_last or (is_steady and seconds >= WARM_UP_SECONDS):
            return WarmUp(len(durations), seconds, is_steady, durations[0])


def measure_interleaved(
    functions: Mapping[str, Callable[[], object]],
    budget: Budget,
    clock: Clock = time.perf_counter_ns,
    on_round: Callable[[float], None] = lambda _: None,
) -> Dict[str, Series]:
    """Time several functions in alternating bursts, so that all see the same machine and their ratios are fair.

    Every round gives each function one burst, in an order drawn anew from `budget.seed`, until all of them are done: one
    that left earlier would be compared with others on another machine.

    Args:
        functions: by name.
        budget: how long.
        clock: in ns.
        on_round: called after each round with the fraction of the slowest series that is done, in (0, 1].
    """
    order = random.Random(budget.seed)
    names = list(functions)
    runs: Dict[str, List[Tuple[int, int]]] = {name: [] for name in names}  # (start, duration)
    totals = dict.fromkeys(names, 0)
    done = 0.0
    while done < 1:
        order.shuffle(names)
        for name in names:
            _burst(functions[name], budget.discard_runs, budget.discard_seconds, clock)
            burst = _burst(functions[name], budget.burst_runs, budget.burst_seconds, clock)
            runs[name] += burst
            totals[name] += sum(duration for _, duration in burst)
        done = min(_done(len(runs[name]), totals[name], budget) for name in names)
        on_round(done)
    arrays = {name: np.array(runs[name], np.int64) for name in functions}
    return {name: Series(array[:, 1], array[:, 0]) for name, array in arrays.items()}


def _burst(function: Callable[[], object], runs: int, seconds: float, clock: Clock) -> List[Tuple[int, int]]:
    """Return start and duration of each of at least `runs` runs that together take at least `seconds`."""
    burst: List[Tuple[int, int]] = []
    total = 0
    while len(burst) < runs or total < seconds * NS_PER_S:
        began = clock()
        function()
        burst.append((began, clock() - began))
        total += burst[-1][1]
    return burst


def _done(samples: int, total_ns: int, budget: Budget) -> float:
    parts = [samples / budget.min_samples] if budget.min_samples else []
    parts += [total_ns / (budget.min_seconds * NS_PER_S)] if budget.min_seconds else []
    return min([1.0, *parts])


def _is_steady(durations: List[int], window: int) -> bool:
    before = float(np.median(durations[-2 * window : -window]))
    after = float(np.median(durations[-window:]))
    return abs(after - before) <= STEADY * before

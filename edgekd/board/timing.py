"""Latency: one percentile definition, warm-up until steady, and interleaved measurement of several functions.

Percentiles are nearest-rank, like MLPerf's and benchmark_app's: a value that was measured, never an interpolation.

Between two readings of the clock nothing runs but the measured function. Arrays for the runs of a burst exist before it
starts, so that a loop of a million runs keeps no memory more than one of ten (`tests/unit/board/test_timing_memory.py`).

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

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
# Runs of a burst that are kept at most; the burst ends then. In a burst of 0.2 s a run would have to take under 6 us.
LONGEST_BURST = 1 << 15
NS_PER_MS, NS_PER_S = 1e6, 1e9


@dataclass(frozen=True)
class Series:
    """Raw runs of one function.

    samples_ns, starts_ns: (N,) int64, durations and start times of one clock.
    bursts: (R,) int64, the number of runs in the burst of each round; their sum is N.
    parts_ns: (N, P) int64, durations of the parts of each run; P is 0 for a function without parts.
    """

    samples_ns: np.ndarray
    starts_ns: np.ndarray
    bursts: np.ndarray
    parts_ns: np.ndarray

    def medians_ns(self) -> np.ndarray:
        """Return the median run of each burst, (R,) float64: one figure per round, to pair with those of other functions."""
        return burst_medians(self.samples_ns, self.bursts)

    def part_medians_ns(self, part: int) -> np.ndarray:
        """Return the same of one part of the runs."""
        return burst_medians(self.parts_ns[:, part], self.bursts)


@dataclass(frozen=True)
class Parted:
    """A function that times its own parts: `run` writes their durations into `parts_ns` (P,) int64 each time it runs."""

    run: Callable[[], object]
    parts_ns: np.ndarray


@dataclass(frozen=True)
class WarmUp:
    """The warm-up before timing; `first_ns` is the first run, which may include lazy initialisation."""

    runs: int
    seconds: float
    is_steady: bool
    first_ns: int


@dataclass(frozen=True)
class Budget:
    """When a series is long enough: `min_samples` and `min_seconds` of measured runs and `min_rounds` must all be met.

    burst_seconds, burst_runs: consecutive measured runs of one function before the next one's turn, at least both.
    discard_seconds, discard_runs: runs before each burst that are not kept, at least both: caches refill, the
        runtime's threads wake, and those of the function before go to sleep. ONNX Runtime's spin on for some 60 ms after
        a run; engines measured within that time took up to 25 % longer.
    seed: seed of the order within each round.
    """

    min_samples: int = 500
    min_seconds: float = 3.0
    burst_seconds: float = 0.2
    burst_runs: int = 5
    discard_seconds: float = 0.1
    discard_runs: int = 1
    seed: int = 0
    min_rounds: int = 1


def burst_medians(samples: np.ndarray, bursts: np.ndarray) -> np.ndarray:
    """Return the median of each burst, (R,) float64. samples: (N,); bursts: burst sizes (R,), sum N."""
    return np.array([np.median(burst) for burst in np.split(samples, np.cumsum(bursts)[:-1])])


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


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Tuple[float, float]:
    """Return an interval that holds the median of what the values are drawn from, with at least this confidence.

    By order statistics, for any distribution: the k-th smallest and the k-th largest value, k as large as P(B < k) <=
    (1 - confidence) / 2 lets it be for B of a binomial distribution (n, 1/2). Fewer values than carry it, 6 for 95 %, give an
    interval from minus to plus infinity. Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    ranked, count = sorted(values), len(values)
    tail, rank = 0.0, 0
    while rank < count:
        tail += math.comb(count, rank) / 2**count
        if tail > (1 - confidence) / 2:
            break
        rank += 1
    return (float(ranked[rank - 1]), float(ranked[-rank])) if rank else (-math.inf, math.inf)


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
    latest = _Latest(2 * WARM_UP_WINDOW)
    first = 0
    while True:
        began = clock()
        function()
        ended = clock()
        first = first if latest.count else ended - began
        latest.add(ended - began)
        seconds = (ended - start) / NS_PER_S
        is_last = seconds >= max_seconds
        window = min(WARM_UP_WINDOW, latest.count // 2) if is_last else WARM_UP_WINDOW
        if window < SMALLEST_WINDOW or latest.count < 2 * window:
            continue
        before, after = latest.median(2 * window, window), latest.median(window, 0)
        is_steady = abs(after - before) <= STEADY * before
        if is_last or (is_steady and seconds >= WARM_UP_SECONDS):
            return WarmUp(latest.count, seconds, is_steady, first)


def measure_interleaved(
    functions: Mapping[str, "Callable[[], object] | Parted"],
    budget: Budget,
    clock: Clock = time.perf_counter_ns,
    on_round: Callable[[float], None] = lambda _: None,
) -> Dict[str, Series]:
    """Time several functions in alternating bursts, so that all see the same machine and their ratios are fair.

    Every round gives each function one burst, in a random order (`budget.seed`), until all of them are done: one
    that left earlier would be compared with others on another machine.

    Args:
        functions: by name.
        budget: how long.
        clock: in ns.
        on_round: called after each round with the fraction done of the slowest series, in (0, 1].
    """
    order = random.Random(budget.seed)
    names = list(functions)
    recorders = {name: _Recorder(function, budget.burst_runs) for name, function in functions.items()}
    done = 0.0
    while done < 1:
        order.shuffle(names)
        for name in names:
            recorders[name].burst(budget.discard_runs, budget.discard_seconds, clock)
            recorders[name].burst(budget.burst_runs, budget.burst_seconds, clock)
            recorders[name].keep()
        done = min(recorder.done(budget) for recorder in recorders.values())
        on_round(done)
    return {name: recorders[name].series() for name in functions}


class _Recorder:
    """Runs of one function: a buffer for one burst, made beforehand, and the bursts that are kept."""

    def __init__(self, function: "Callable[[], object] | Parted", burst_runs: int) -> None:
        parts = function.parts_ns if isinstance(function, Parted) else None
        self._parts: Optional[np.ndarray] = parts
        self._run = function.run if isinstance(function, Parted) else function
        # Start, duration and parts of each run. Filled once, because memory that was never written is mapped on first use.
        self._buffer = np.full((max(LONGEST_BURST, burst_runs), 2 + (0 if parts is None else len(parts))), -1, np.int64)
        self._count = 0
        self._kept: List[np.ndarray] = []

    def burst(self, runs: int, seconds: float, clock: Clock) -> None:
        """Run at least `runs` times and for at least `seconds`, or until the buffer is full; replaces the burst before."""
        run, parts, buffer = self._run, self._parts, self._buffer
        count = total = 0
        limit, most = seconds * NS_PER_S, len(buffer)
        while (count < runs or total < limit) and count < most:
            began = clock()
            run()
            took = clock() - began
            buffer[count, 0] = began
            buffer[count, 1] = took
            if parts is not None:
                buffer[count, 2:] = parts
            total += took
            count += 1
        self._count = count

    def keep(self) -> None:
        """Keep the last burst."""
        self._kept.append(self._buffer[: self._count].copy())

    def done(self, budget: Budget) -> float:
        """Return the fraction of the budget that the kept runs fill, at most 1."""
        samples = sum(len(burst) for burst in self._kept)
        total_ns = sum(int(burst[:, 1].sum()) for burst in self._kept)
        parts = [samples / budget.min_samples] if budget.min_samples else []
        parts += [total_ns / (budget.min_seconds * NS_PER_S)] if budget.min_seconds else []
        return min([1.0, len(self._kept) / budget.min_rounds, *parts])

    def series(self) -> Series:
        """Return the kept runs."""
        runs = np.concatenate(self._kept)
        bursts = np.array([len(burst) for burst in self._kept], np.int64)
        starts, samples, parts = (np.ascontiguousarray(one) for one in (runs[:, 0], runs[:, 1], runs[:, 2:]))
        return Series(samples, starts, bursts, parts)


class _Latest:
    """The latest durations, of `count` that were added."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self._length = length
        self._ring = np.zeros(2 * length, np.int64)  # each duration is stored twice, so that the latest are one slice
        self._sorted = np.zeros(length, np.int64)

    def add(self, duration: int) -> None:
        """Add one."""
        place = self.count % self._length
        self._ring[place] = self._ring[place + self._length] = duration
        self.count += 1

    def median(self, first: int, last: int) -> float:
        """Return the median of those from the `first`-latest on, without the `last` latest."""
        end = (self.count - 1) % self._length + 1 + self._length
        window = self._sorted[: first - last]
        window[:] = self._ring[end - first : end - last]
        window.sort()
        middle = len(window) // 2
        return float(window[middle] + window[-1 - middle]) / 2

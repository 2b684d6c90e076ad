"""Cost of the sampler: the same function with and without it, in alternating bursts of one run.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, List

import numpy as np

from edgekd.board.sampling import Sampler
from edgekd.board.timing import NS_PER_S, Clock

MAX_COST = 0.01  # above it the figures of the run with the sampler are doubtful
BURST_SECONDS, DISCARD_SECONDS = 0.5, 0.1
MIN_ROUNDS = 4


@dataclass(frozen=True)
class SamplingCost:
    """Slow-down by the sampler (JSON-ready).

    fraction: median over rounds of the mean time with it over that without it, minus 1.
    spread: half of the interquartile range of the rounds; a smaller fraction is within the noise.
    rounds: pairs of bursts.
    """

    fraction: float
    spread: float
    rounds: int

    @property
    def warning(self) -> str:
        """Warning that the sampler slows the engine down; "" when its cost is small."""
        if self.fraction <= MAX_COST:
            return ""
        return f"the sensors' sampler costs {self.fraction:.1%} (± {self.spread:.1%}) of the engine time, more than {MAX_COST:.0%}"


def sampling_cost(
    function: Callable[[], object], sampler: Sampler, seconds: float, clock: Clock = time.perf_counter_ns
) -> SamplingCost:
    """Measure for about `seconds`, at least MIN_ROUNDS rounds, and leave the sampler running."""
    rounds = max(MIN_ROUNDS, round(seconds / 2 / (BURST_SECONDS + DISCARD_SECONDS)))
    ratios: List[float] = []
    for number in range(rounds):
        means = {}
        for is_sampled in (True, False) if number % 2 else (False, True):
            (sampler.resume if is_sampled else sampler.pause)()
            _mean_ns(function, DISCARD_SECONDS, clock)
            means[is_sampled] = _mean_ns(function, BURST_SECONDS, clock)
        ratios.append(means[True] / means[False] - 1)
    sampler.resume()
    low, high = np.percentile(ratios, (25, 75))
    return SamplingCost(float(np.median(ratios)), float(high - low) / 2, rounds)


def _mean_ns(function: Callable[[], object], seconds: float, clock: Clock) -> float:
    began, runs = clock(), 0
    while clock() - began < seconds * NS_PER_S or not runs:
        function()
        runs += 1
    return (clock() - began) / runs

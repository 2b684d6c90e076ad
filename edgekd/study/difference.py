"""The difference between two arms of a study.

It is paired by seed: both students of a pair start from the same weights and see the same batches. Its 95 % interval is
Student's t over the seeds, so it says nothing about other data, other budgets or another teacher.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Arm minus baseline over the seeds that both have, in the metric's own unit.

    by_seed: in the order of the seeds.
    low, high: 95 % interval of the mean; None with fewer than two seeds.
    verdict: `better`, `worse`, `no measurable difference`, or `one seed` when there is no interval.
    """

    by_seed: list[float]
    mean: float
    low: float | None
    high: float | None
    verdict: str


def compare(arm: Mapping[int, float], baseline: Mapping[int, float], higher_is_better: bool) -> Difference | None:
    """Return the paired difference of one metric, given by seed; None when no seed has both."""
    seeds = sorted(set(arm) & set(baseline))
    if not seeds:
        return None
    differences = [arm[seed] - baseline[seed] for seed in seeds]
    mean = statistics.mean(differences)
    if len(seeds) == 1:
        return Difference(differences, mean, None, None, "one seed")
    half = _t_quantile(len(seeds) - 1) * statistics.stdev(differences) / len(seeds) ** 0.5
    low, high = mean - half, mean + half
    if low <= 0 <= high:
        return Difference(differences, mean, low, high, "no measurable difference")
    return Difference(differences, mean, low, high, "better" if (low > 0) == higher_is_better else "worse")


def by_seed(runs: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """Return a metric of an arm's runs, as `study.json` has them, by seed; those that have it."""
    measured = [run for run in runs if run["status"] == "measured"]
    return {run["seed"]: run["metrics"][metric] for run in measured if run["metrics"].get(metric) is not None}


def pairs_of(arm: Mapping[str, Any], metric: str) -> int:
    """Return over how many seeds an arm of `study.json` is compared with the baseline in a metric."""
    return len((arm["metrics"].get(metric, {}).get("difference") or {"by_seed": ()})["by_seed"])


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))

"""The difference between two arms of a study.

It is paired by seed: both students of a pair start from the same weights and see the same batches. The 95 % interval is
Student's t over the seeds. It says nothing about other data, other budgets or another teacher.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from edgekd.study.model import Arm, ArmRun, Difference

CONFIDENCE = 0.95


def compare(arm: Mapping[int, float], baseline: Mapping[int, float], higher_is_better: bool) -> Difference | None:
    """Return the paired difference of one metric, given by seed; None when no seed has both."""
    seeds = sorted(set(arm) & set(baseline))
    if not seeds:
        return None
    differences = [arm[seed] - baseline[seed] for seed in seeds]
    mean = statistics.mean(differences)
    if len(seeds) == 1:
        return Difference(by_seed=differences, mean=mean, low=None, high=None, verdict="one seed")
    half = _t_quantile(len(seeds) - 1) * statistics.stdev(differences) / len(seeds) ** 0.5
    low, high = mean - half, mean + half
    verdict = "better" if (low > 0) == higher_is_better else "worse"
    if low <= 0 <= high:
        verdict = "no measurable difference"
    return Difference(by_seed=differences, mean=mean, low=low, high=high, verdict=verdict)


def by_seed(runs: Sequence[ArmRun], metric: str) -> dict[int, float]:
    """Return a metric of an arm's measured runs by seed, without the runs that lack it."""
    found = {run.seed: run.metrics.get(metric) for run in runs if run.status == "measured"}
    return {seed: value for seed, value in found.items() if value is not None}


def difference_of(arm: Arm, metric: str) -> Difference | None:
    """Return the difference between an arm and the baseline in a metric; None for the baseline and without common seeds."""
    summary = arm.metrics.get(metric)
    return summary.difference if summary else None


def pairs_of(arm: Arm, metric: str) -> int:
    """Return the number of seeds over which an arm is compared with the baseline in a metric."""
    difference = difference_of(arm, metric)
    return len(difference.by_seed) if difference else 0


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))

"""The difference between two arms of a study.

It is paired by seed: both students of a pair start from the same weights and see the same batches. The 95 % interval is
Student's t over the seeds. It says nothing about other data, other budgets or another teacher.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.model import Arm, ArmRun, Difference

CONFIDENCE = 0.95
MISSING = "–"


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


def between(arm: Arm, other: Arm, metric: str) -> Difference | None:
    """Return the difference arm - other in a metric, paired by seed; None without a common seed."""
    return compare(by_seed(arm.runs, metric), by_seed(other.runs, metric), DEFINITIONS[metric][2])


def interval_text(difference: Difference | None, digits: int = 2) -> str:
    """Return the mean of a difference in points, with the interval where it has one."""
    if difference is None:
        return MISSING
    mean = f"{100 * difference.mean:+.{digits}f}"
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{100 * difference.low:+.{digits}f}, {100 * difference.high:+.{digits}f}]"


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

"""Ranking left_float_metric: how much the metric gains when one operator is in float and all others are in int8.

It scores every selection image once for each operator, so it is the slowest ranking.
"""

from __future__ import annotations

from edgekd.sensitivity.base import Probe


def harm(probe: Probe) -> dict[str, float]:
    """Return minus the drop of the metric with all operators but this one in int8, by operator."""
    return {name: -probe.drop(frozenset((name,))) for name in probe.nodes}

"""Ranking alone_sqnr: how much one operator in int8 disturbs the outputs when all others are in float. Needs no labels.

If many layers lose much, prefer it to `left_float_sqnr`, where the others hide what one of them does.
"""

from __future__ import annotations

from edgekd.sensitivity.base import Probe


def harm(probe: Probe) -> dict[str, float]:
    """Return minus the SQNR in dB of the outputs with only this operator in int8, by operator."""
    return {name: -probe.alone(name) for name in probe.nodes}

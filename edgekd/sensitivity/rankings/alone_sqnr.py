"""Ranking alone_sqnr: how much one operator in int8 disturbs the outputs when all others are in float. Needs no labels.

It finds fewer float layers than `left_float_sqnr` when many layers are bad: those hide what one of them does.
"""

from __future__ import annotations

from edgekd.sensitivity.base import Probe


def harm(probe: Probe) -> dict[str, float]:
    """Return minus the SQNR in dB of the outputs with only this operator in int8, by operator."""
    return {name: -probe.alone(name) for name in probe.nodes}

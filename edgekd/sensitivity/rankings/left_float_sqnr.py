"""Ranking left_float_sqnr: how much the outputs gain when one operator is in float and all others are in int8. Needs no labels."""

from __future__ import annotations

from edgekd.sensitivity.base import Probe


def harm(probe: Probe) -> dict[str, float]:
    """Return the SQNR in dB of the outputs with all operators but this one in int8, by operator."""
    return {name: probe.sqnr(frozenset(probe.nodes) - {name}) for name in probe.nodes}

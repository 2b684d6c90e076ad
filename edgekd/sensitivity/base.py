"""The interface of a ranking, which orders the operators of a graph for the budget search.

A ranking is one file `sensitivity/rankings/<name>.py` with

    harm(probe) -> dict[str, float]     by operator; the operator with the most harm is the first to stay in float
"""

from __future__ import annotations

from typing import Protocol


class Probe(Protocol):
    """Answers of the reference Q/DQ graph about sets of operators.

    nodes: operators that the quantizer puts in int8, in graph order.
    """

    nodes: tuple[str, ...]

    def alone(self, name: str) -> float:
        """Return the SQNR in dB of the outputs when only this operator is in int8."""

    def sqnr(self, quantized: frozenset[str]) -> float:
        """Return the SQNR in dB of the outputs when these operators are in int8."""

    def drop(self, floats: frozenset[str]) -> float:
        """Return the drop of the metric on the selection images when these operators are in float."""

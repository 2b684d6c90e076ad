"""The Q/DQ graphs that targets compile for int8: what they refuse of them, and where sums would overflow.

Portable: standard library + numpy, Python 3.8; onnx inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

from edgekd.board.sysinfo import Facts, adds_products_in_16_bits
from edgekd.errors import TargetError
from edgekd.rewrites.graph import Graph, name_of
from edgekd.rewrites.pairs import WideWeight, other_types


def check_types(graph: Graph, path: Path, product: str) -> None:
    """Refuse Q/DQ pairs of other integers than 8-bit ones.

    ONNX Runtime 1.32 and OpenVINO 2026.4 take pairs of 16 and 4 bits and of float8, and compute in float between them.

    Args:
        graph: of the model.
        path: its file, for the message.
        product: the runtime's name.

    Raises:
        TargetError: a pair of 16 bits, 4 bits or float8; the message names the node.
    """
    for node, kind in other_types(graph):
        raise TargetError(
            f"{path}: node {name_of(node)!r}: precision int8 expected Q/DQ pairs of int8 or uint8, got {kind}; edgekd does not "
            f"build such engines for {product}, quantize to 8 bits"
        )


def why_saturates(found: Iterable[WideWeight], machine: Facts) -> str:
    """Return why sums of products overflow on a machine, on one line; "" when none can.

    Args:
        found: nodes with 8-bit weights whose activations are, or become, unsigned.
        machine: facts of `sysinfo.environment`.
    """
    first = next(iter(found), None) if adds_products_in_16_bits(machine) else None
    if first is None:
        return ""
    return (
        f"node {first.node!r} has weights up to {first.largest} steps, and this CPU has no VNNI: sums of two products saturate "
        f"in 16 bits, expected 7-bit weights of at most 64 steps; quantize with weight_bits: 7"
    )

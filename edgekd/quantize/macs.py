"""Multiply-adds of the operators of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.quantize.ptq import WEIGHTED
from edgekd.rewrites.graph import Graph, attributes, name_of


def macs_by_node(graph: Graph) -> dict[str, int]:
    """Return the multiply-adds of each operator with weights, by node name; 0 where a shape is not static."""
    return {name_of(node): _macs(graph, node) for node in graph.nodes if node.op_type in WEIGHTED}


def _macs(graph: Graph, node: Any) -> int:
    first, second, made = (graph.shape(name) for name in (node.input[0], node.input[1], node.output[0]))
    if first is None or second is None or made is None:
        return 0
    if node.op_type == "Conv":  # weight (out, in / groups, ...)
        return _size(made) * _size(second[1:])
    if node.op_type == "ConvTranspose":  # weight (in, out / groups, ...)
        return _size(first) * _size(second[1:])
    inner = first[0] if attributes(node).get("transA", 0) else first[-1]
    return _size(made) * inner


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))

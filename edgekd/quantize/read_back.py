"""Reads back what a quantized model quantizes: its operators, grids and scales, on the float graph that it was made from.

A scheme's toolchain decides more than its options say: which additions and resizes it quantizes, with which ranges, with
which biases. So the reference that an engine is held to layer by layer is read from the quantized file, not made again.

A scheme whose file is no Q/DQ graph has a function `read_back(quantized, model)` of its own that returns a `ReadBack`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.quantize.grids import Grid, Placement, QuantizedNode
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.rewrites.graph import QDQ, Graph, attributes, name_nodes, read_onnx


@dataclass(frozen=True)
class ReadBack:
    """A quantized model as its definition says.

    model: the float graph (`onnx.ModelProto`), with the quantized model's own biases.
    placement, scales: what is quantized, with which scales.
    graph: the Q/DQ graph, to be evaluated without optimisation.
    is_file: whether `graph` is the quantized model's own file, not one that is made to say the same.
    left_out: operators with a rounding that `graph` cannot show, inside an operator that the toolchain splits.
    """

    model: Any
    placement: Placement
    scales: dict[str, Scale]
    graph: Any
    is_file: bool = True
    left_out: frozenset[str] = frozenset()


def read_back(quantized: Path, model: Path) -> ReadBack:
    """Read a Q/DQ graph back on its float graph; operators are the same ones when they have the same name and kind.

    Raises:
        ArtifactError: a file is not a readable ONNX model, or no quantized operator is one of the float graph.
    """
    source, made = read_onnx(model), read_onnx(quantized)
    name_nodes(source)
    graph, float_graph = Graph(made, quantized), Graph(source, model)
    before = {node.name: node for node in float_graph.nodes}
    nodes: list[QuantizedNode] = []
    activations: dict[str, Grid] = {}
    weights: dict[str, Grid] = {}
    scales: dict[str, Scale] = {}
    for node in graph.nodes:
        twin = before.get(node.name)
        if twin is None or twin.op_type != node.op_type or node.op_type in QDQ:
            continue
        found = {}
        for name, original in zip(node.input[: _READ.get(node.op_type, len(node.input))], twin.input, strict=False):
            pair = graph.producer(name)
            if pair is None or pair.op_type != "DequantizeLinear":
                continue
            found[original] = pair
        constant = set(float_graph.constants)
        weight = next((name for name in found if name in constant), None)
        read = tuple(name for name in found if name not in constant)
        if not found:
            continue
        nodes.append(QuantizedNode(node.name, read, weight))
        for name, pair in found.items():
            grid, scales[name] = _grid(graph, pair, is_weight=name == weight)
            (weights if name == weight else activations)[name] = grid
    if not nodes:
        raise ArtifactError(
            f"{quantized}: none of its quantized operators is in {model}; delete {quantized.parent} and run again"
        )
    placement = Placement(tuple(nodes), activations, weights)
    return ReadBack(source, placement, scales, made)


def from_scales(
    model: Any, placement: Placement, scales: dict[str, Scale], left_out: frozenset[str] = frozenset()
) -> ReadBack:
    """Return the quantized nodes and scales of a placement, for a scheme whose file is not a Q/DQ graph."""
    return ReadBack(model, placement, scales, insert_qdq(model, placement, scales), False, left_out)


# Inputs that are data; a third input of these is a bias, whose 32 bits change nothing.
_READ = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Resize": 1, "Clip": 1}


def _grid(graph: Graph, pair: Any, is_weight: bool) -> tuple[Grid, Scale]:
    """Return grid and scale of a DequantizeLinear."""
    scale = np.asarray(graph.value(pair.input[1]), np.float32)
    zero = graph.value(pair.input[2]) if len(pair.input) > 2 else np.zeros(scale.shape, np.uint8)  # ONNX's default
    axis = int(attributes(pair).get("axis", 1)) if scale.ndim and scale.size > 1 else None
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    is_signed = np.issubdtype(zero.dtype, np.signedinteger)
    bits = 8 * zero.dtype.itemsize
    largest = None
    if is_weight:  # a range of fewer bits is in the integers, not in their type
        whole = graph.constant(pair.input[0])
        largest = None if whole is None else max(1, int(np.abs(whole.astype(np.int64)).max()))
        largest = largest if is_signed and largest is not None and largest < 1 << (bits - 1) else None
    return Grid(bits, bool(is_signed), not zero.any(), axis, largest), Scale(scale, zero)

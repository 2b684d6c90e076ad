"""Grids and placement: which tensors of an exported graph a quantizer puts on a grid of integers, and on which grid.

One rule for all that quantize: the scheme's own toolchain, the reference Q/DQ graph, fake quantization in torch, the error
per layer. A scheme returns its placement from `grids(model, spec, options)`. It lists operators with weights only, and the
tensors that they read: what lies between is the toolchain's to fuse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.quantize.ptq import WEIGHTED
from edgekd.rewrites.graph import Graph, attributes, name_nodes, read_onnx


@dataclass(frozen=True)
class Grid:
    """The integers that stand for a tensor's values: value = scale * (integer - zero point).

    bits: number of bits of an integer.
    is_signed: signed integers.
    is_symmetric: zero point 0.
    axis: axis of the channels, each of which has a scale; None: one scale for the tensor.
    largest: largest magnitude of an integer; None: every integer that the bits hold. Toolchains leave -128 out for weights, and
        with 7 bits some stop at 63 and some at 64.
    reach: steps from 0 to the largest magnitude of the values; None: the largest integer. NNCF's 7 bits reach 63.5.
    """

    bits: int
    is_signed: bool
    is_symmetric: bool
    axis: int | None = None
    largest: int | None = None
    reach: float | None = None

    @property
    def levels(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        if self.largest is not None:
            return (-self.largest if self.is_signed else 0), self.largest
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the integers: of 8 bits, or of 16 where they have more."""
        return np.dtype(f"{'' if self.is_signed else 'u'}int{8 if self.bits <= 8 else 16}")


@dataclass(frozen=True)
class QuantizedNode:
    """An operator that computes with integers.

    name: the ONNX node.
    activations: its quantized inputs that are not constant.
    weight: its constant input (an initializer), None for a product of two activations.
    """

    name: str
    activations: tuple[str, ...]
    weight: str | None


@dataclass(frozen=True)
class Placement:
    """The quantized operators in graph order; the grid of each activation and weight by tensor. All readers share a grid."""

    nodes: tuple[QuantizedNode, ...]
    activations: Mapping[str, Grid]
    weights: Mapping[str, Grid]

    def only(self, nodes: Collection[str]) -> Placement:
        """Return the placement of some of the operators."""
        chosen = tuple(node for node in self.nodes if node.name in nodes)
        tensors = {name for node in chosen for name in node.activations}
        weights = {node.weight for node in chosen}
        return Placement(
            chosen,
            {name: grid for name, grid in self.activations.items() if name in tensors},
            {name: grid for name, grid in self.weights.items() if name in weights},
        )


def named_graph(model: Path) -> Graph:
    """Read a graph and give each node a name of its own, the same names as `with_names` in `ptq.py`.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
    """
    proto = read_onnx(model, has_weights=False)
    name_nodes(proto)
    return Graph(proto, model)


def placement_of(
    graph: Graph, keep: Collection[str], activation: Callable[[str], Grid], weight: Grid, is_per_channel: bool = True
) -> Placement:
    """Return the placement that quantizes every operator with weights except those to keep.

    Args:
        graph: a graph with named nodes.
        keep: names of the nodes that stay in float.
        activation: returns the grid of an activation.
        weight: the grid of weights; its axis is set by operator.
        is_per_channel: one scale per output channel of a weight.
    """
    constants, kept = set(graph.constants), set(keep)
    nodes: list[QuantizedNode] = []
    activations: dict[str, Grid] = {}
    weights: dict[str, Grid] = {}
    for node in graph.nodes:
        if node.op_type not in WEIGHTED or node.name in kept:
            continue
        inputs = tuple(dict.fromkeys(name for name in node.input[:2] if name not in constants))
        found = next((name for name in reversed(node.input[:2]) if name in constants), None)
        nodes.append(QuantizedNode(node.name, inputs, found))
        activations.update((name, activation(name)) for name in inputs)
        if found is not None:
            axis = channel_axis(node, found) if is_per_channel else None
            weights.setdefault(found, replace(weight, axis=axis))
    return Placement(tuple(nodes), activations, weights)


def channel_axis(node: Any, weight: str) -> int | None:
    """Return the axis of a weight's output channels; None for a matrix on the left, whose rows are not channels.

    A transposed convolution in groups has a scale for each channel of a group, which all groups share.
    """
    if node.op_type == "Conv":
        return 0
    if weight != node.input[1]:
        return None
    return 0 if node.op_type == "Gemm" and attributes(node).get("transB", 0) else 1


def symmetric_weights(bits: int) -> Grid:
    """Return the usual grid of weights: signed, zero point 0, the same largest magnitude on both sides."""
    return Grid(bits, is_signed=True, is_symmetric=True, largest=(1 << (bits - 1)) - 1)


_COPIES = (
    "AveragePool", "Cast", "Concat", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool",
    "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Add", "Mul",
)  # fmt: skip
_POSITIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Sqrt")


def is_non_negative(graph: Graph, tensor: str) -> bool:
    """Whether the operators before a tensor leave no value below 0; a cubic Resize may, and an unknown operator."""
    pending, seen = [tensor], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer(name)
        if node is None:
            value = graph.constant(name)
            if value is None or (value < 0).any():
                return False
        elif node.op_type == "Clip":
            low = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            if low is None or low < 0:
                return False
        elif node.op_type in _COPIES and attributes(node).get("mode") != "cubic":
            pending += _values(node)
        elif node.op_type not in _POSITIVE:
            return False
    return True


def _values(node: Any) -> Iterator[str]:
    """Yield the inputs of a node that become values of its output, not sizes or indices."""
    is_many = node.op_type in ("Concat", "Add", "Mul")
    yield from filter(None, node.input if is_many else node.input[:1])

"""Patterns in a graph that break toolchains, by name: each is a function(graph) that yields its matches.

A table gives a pattern's consequence for its target; a pattern that no table names is not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgekd.rewrites import antialias_resize, average_pool_ceil, max_pool_pads, stack_sum
from edgekd.rewrites.graph import QDQ, Graph, attributes
from edgekd.rewrites.pairs import other_types, unsigned_zero_points

_COPIES = ("Reshape", "Transpose", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Identity", "Split")


@dataclass(frozen=True)
class Match:
    """One occurrence of a pattern: its nodes, the most significant first, and its numbers in words."""

    nodes: tuple[Any, ...]
    says: str


def adaptive_pooling(graph: Graph) -> Iterator[Match]:
    """AdaptiveAvgPool whose bins do not divide the map: torch gathers the windows, (H, W, ...) by (bins, window, ..., 2)."""
    for node in graph.nodes:
        if node.op_type != "GatherND":
            continue
        data, indices = graph.shape(node.input[0]), graph.shape(node.input[1])
        if data is None or indices is None or len(indices) != 5 or indices[-1] != 2:
            continue
        bins, size = (indices[0], indices[2]), data[:2]
        yield Match((node,), f"adaptive pooling to {bins[0]}x{bins[1]} bins, which do not divide {size[0]}x{size[1]}")


def group_norm(graph: Graph) -> Iterator[Match]:
    """GroupNorm as torch lowers it: Reshape to (B, G, C/G*H*W), InstanceNormalization, Reshape back."""
    for node in graph.nodes:
        before = graph.producer(node.input[0]) if node.op_type == "InstanceNormalization" else None
        after = graph.readers(node.output[0])
        if before is None or before.op_type != "Reshape" or [n.op_type for n in after] != ["Reshape"]:
            continue
        shape = graph.shape(node.input[0])
        where = f" over an axis of {shape[-1]} values in {shape[1]} groups" if shape else ""
        yield Match((node, before, after[0]), f"GroupNorm lowered to InstanceNormalization{where}")


def many_dimensions(graph: Graph) -> Iterator[Match]:
    """Tensors of more than four dimensions that an operator computes."""
    for node in graph.nodes:
        shape = graph.shapes.get(node.output[0], ())
        if len(shape) > 4:
            yield Match((node,), f"a tensor of {len(shape)} dimensions, {list(shape)}")


def dynamic_shape(graph: Graph) -> Iterator[Match]:
    """Inputs or outputs whose shape is not fixed in the file."""
    for value in (*graph.inputs, *graph.outputs):
        shape = graph.shapes.get(value.name, ())
        if any(isinstance(size, str) for size in shape):
            nodes = (*graph.readers(value.name)[:1], *filter(None, [graph.producer(value.name)]))
            yield Match(nodes, f"{value.name} {list(shape)} is not static")


def unsigned_quantization(graph: Graph) -> Iterator[Match]:
    """Q/DQ whose zero point is not int8 0."""
    for node, zero_point in unsigned_zero_points(graph):
        yield Match((node,), f"a zero point of {zero_point}")


def other_quantization(graph: Graph) -> Iterator[Match]:
    """Q/DQ pairs of 16 or 4 bits, or of float8."""
    for node, kind in other_types(graph):
        yield Match((node,), f"a Q/DQ pair of {kind}")


def quantized_graph(graph: Graph) -> Iterator[Match]:
    """Q/DQ pairs of any kind; the first stands for all."""
    pairs = tuple(node for node in graph.nodes if node.op_type in QDQ)
    if pairs:
        yield Match(pairs, "a graph with Q/DQ pairs")


def mixed_range_concat(graph: Graph) -> Iterator[Match]:
    """An output that joins scores in 0 to 1 with values of another range, boxes in pixels say."""
    for output in graph.outputs:
        node = graph.producer(output.name)
        while node is not None and node.op_type in ("Transpose", "Reshape"):
            node = graph.producer(node.input[0])
        if node is None or node.op_type != "Concat":
            continue
        is_score = [_origin(graph, name) in ("Sigmoid", "Softmax") for name in node.input]
        if any(is_score) and not all(is_score):
            yield Match((node,), f"{output.name} joins scores with values of another range in one tensor")


def misread_max_pool(graph: Graph) -> Iterator[Match]:
    """MaxPool larger than its input whose windows do not cover it; see `rewrites/max_pool_pads.py`."""
    for node in max_pool_pads.misread(graph):
        size = graph.shape(node.input[0]) or ()
        yield Match((node,), f"a MaxPool larger than its input of {size[-2]}x{size[-1]}")


def stacked_sum(graph: Graph) -> Iterator[Match]:
    """Tensors stacked on a new axis and summed over it, as torch.stack(...).sum is exported."""
    for stack in stack_sum.stacks(graph):
        total = stack.nodes[-1]
        yield Match((total,), f"a sum over a stack of tensors, {list(graph.shapes.get(total.input[0], ()))}")


def antialiased_resize(graph: Graph) -> Iterator[Match]:
    """Resize with antialiasing to a smaller map; see `rewrites/antialias_resize.py`."""
    for node in antialias_resize.shrinking(graph):
        before, after = graph.shape(node.input[0]) or (), graph.shape(node.output[0]) or ()
        yield Match((node,), f"a Resize with antialias from {before[-2]}x{before[-1]} to {after[-2]}x{after[-1]}")


def overhanging_average(graph: Graph) -> Iterator[Match]:
    """AveragePool with `ceil_mode` whose last window reaches beyond the padding; see `rewrites/average_pool_ceil.py`."""
    for node, _ in average_pool_ceil.overhanging(graph):
        size = graph.shape(node.input[0]) or ()
        yield Match((node,), f"an AveragePool of {size[-2]}x{size[-1]} whose last window reaches beyond its padding")


def suppression(graph: Graph) -> Iterator[Match]:
    """NonMaxSuppression inside the graph."""
    for node in graph.nodes:
        if node.op_type == "NonMaxSuppression":
            yield Match((node,), "NonMaxSuppression in the graph")


def _origin(graph: Graph, name: str) -> str:
    """Return the operator that computed a tensor's values, behind those that only move them."""
    node = graph.producer(name)
    while node is not None and node.op_type in _COPIES:
        node = graph.producer(node.input[0])
    return "" if node is None else node.op_type


PATTERNS: dict[str, Callable[[Graph], Iterator[Match]]] = {
    one.__name__: one
    for one in (
        adaptive_pooling,
        antialiased_resize,
        group_norm,
        many_dimensions,
        dynamic_shape,
        unsigned_quantization,
        other_quantization,
        quantized_graph,
        mixed_range_concat,
        misread_max_pool,
        overhanging_average,
        stacked_sum,
        suppression,
    )
}


def resize_factor(graph: Graph, node: Any) -> tuple[float, ...] | None:
    """Return the factor (height, width) of a Resize; None when shapes are unknown or not (B, C, H, W)."""
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    if before is None or after is None or len(before) != 4:
        return None
    return tuple(new / old for old, new in zip(before[2:], after[2:], strict=True))


def kernel(graph: Graph, node: Any) -> tuple[int, ...] | None:
    """Return a node's kernel (height, width): its attribute, or the shape of its weights."""
    given = attributes(node).get("kernel_shape")
    shape = graph.shape(node.input[1]) if given is None and len(node.input) > 1 else None
    return tuple(given) if given is not None else shape and tuple(shape[2:])

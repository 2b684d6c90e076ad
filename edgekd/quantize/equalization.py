"""Cross-layer equalization: moves scale between two convolutions with a ReLU between them. The function stays the same.

A channel whose weights are large beside those of other channels takes the levels of a scale for itself. ReLU lets a positive
factor pass, so a convolution's output channel can be divided by a factor and the next convolution's input channel multiplied
by it. Factors are powers of two: every product is exact, and the network computes the same numbers.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, equations 7
to 11. Deviations: factors are rounded to powers of two; a ReLU6 becomes a ReLU and a Min with a bound for each channel instead
of a ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.rewrites.graph import Graph, attributes

_PASSES = 20  # factors settle within a few; a pair changes its neighbours' ranges


@dataclass(frozen=True)
class Pair:
    """Two convolutions, and the ReLU6 (a Clip) between them where there is one."""

    first: Any
    second: Any
    clip: Any = None


def equalize(model: onnx.ModelProto, has_clips: bool = False) -> list[str]:
    """Equalize the channels of a float graph in place; return the names of the convolutions whose weights changed.

    Args:
        model: a graph with its weights and with named nodes.
        has_clips: also pairs with a ReLU6 between them. Each gets a Min, which some runtimes compute in float.
    """
    weights = {one.name: one for one in model.graph.initializer}
    pairs = [
        one
        for one in pairs_of(Graph(model))
        if (has_clips or one.clip is None)
        and weights.keys() >= {name for node in (one.first, one.second) for name in node.input[1:] if name}
    ]
    names = {name for pair in pairs for node in (pair.first, pair.second) for name in node.input[1:]}
    values = {name: numpy_helper.to_array(weights[name]).astype(np.float32) for name in names if name}
    factors = [np.ones(len(values[pair.first.input[1]]), np.float32) for pair in pairs]
    for _ in range(_PASSES):
        steps = [_balance(pair, values) for pair in pairs]
        factors = [factor * step for factor, step in zip(factors, steps, strict=True)]
        if all((step == 1).all() for step in steps):
            break
    changed = [(pair, factor) for pair, factor in zip(pairs, factors, strict=True) if (factor != 1).any()]
    for name in {name for pair, _ in changed for node in (pair.first, pair.second) for name in node.input[1:] if name}:
        weights[name].CopyFrom(numpy_helper.from_array(values[name], name))
    for pair, factor in changed:
        if pair.clip is not None:
            _bound_channels(model, pair.clip, factor)
    return list(dict.fromkeys(node.name for pair, _ in changed for node in (pair.first, pair.second)))


def pairs_of(graph: Graph) -> Iterator[Pair]:
    """Yield the pairs of convolutions that equalization can change: nothing else reads the tensors and weights of either."""
    for first in graph.nodes:
        if first.op_type != "Conv" or not _has_own_weights(graph, first):
            continue
        second, clip = _follower(graph, first)
        if second is None or second.op_type != "Conv" or not _has_own_weights(graph, second):
            continue
        group, shape = attributes(second).get("group", 1), graph.shape(second.input[1]) or ()
        if group == 1 or (shape and shape[0] == group and shape[1] == 1):  # one input channel for each filter
            yield Pair(first, second, clip)


def _follower(graph: Graph, first: Any) -> tuple[Any, Any]:
    """Return the convolution that reads a convolution's output, alone or behind a ReLU, and the ReLU6 on the way."""
    node, clip = graph.only_reader(first.output[0]), None
    if node is not None and node.op_type == "Clip":
        ends = [graph.constant(name) for name in node.input[1:] if name]
        if len(ends) != 2 or ends[0] is None or ends[1] is None or float(ends[0]) != 0:
            return None, None
        clip = node
    if node is not None and node.op_type in ("Relu", "LeakyRelu", "Clip"):
        node = graph.only_reader(node.output[0])
    return node, clip


def _has_own_weights(graph: Graph, node: Any) -> bool:
    """Whether the node's weight and bias are constants that no other node reads."""
    return all(name in graph.constants and graph.only_reader(name) is not None for name in node.input[1:] if name)


def _balance(pair: Pair, values: dict[str, np.ndarray]) -> np.ndarray:
    """Divide the first convolution's channels by factors and multiply the second's by them; return the factors (C,)."""
    first, second = values[pair.first.input[1]], values[pair.second.input[1]]
    is_depthwise = attributes(pair.second).get("group", 1) > 1
    inputs = second if is_depthwise else np.moveaxis(second, 1, 0)
    before = np.abs(first).reshape(len(first), -1).max(axis=1)
    after = np.abs(inputs).reshape(len(inputs), -1).max(axis=1)
    is_used = (before > 0) & (after > 0)
    ratio = np.divide(before, after, out=np.ones_like(before), where=is_used)
    factor = np.exp2(np.round(np.log2(ratio) / 2)).astype(np.float32)  # sqrt(r1 * r2) / r2
    values[pair.first.input[1]] = first / factor.reshape(-1, *[1] * (first.ndim - 1))
    if len(pair.first.input) > 2 and pair.first.input[2]:
        values[pair.first.input[2]] = values[pair.first.input[2]] / factor
    shape = [1] * second.ndim
    shape[0 if is_depthwise else 1] = -1
    values[pair.second.input[1]] = second * factor.reshape(shape)
    return factor


def _bound_channels(model: onnx.ModelProto, clip: Any, factor: np.ndarray) -> None:
    """Replace a Clip to [0, b] by a Relu and a Min with b / factor for each channel."""
    place = next(place for place, node in enumerate(model.graph.node) if node.name == clip.name)
    node = model.graph.node[place]
    bound = Graph(model).value(node.input[2]).astype(np.float32)
    limit, between, out = f"{node.name}_bound", f"{node.name}_positive", node.output[0]
    model.graph.initializer.append(numpy_helper.from_array((bound / factor).reshape(1, -1, 1, 1), limit))
    node.CopyFrom(helper.make_node("Relu", [node.input[0]], [between], name=node.name))
    model.graph.node.insert(place + 1, helper.make_node("Min", [between, limit], [out], name=limit))

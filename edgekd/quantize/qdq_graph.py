"""The reference Q/DQ graph: a placement written as QuantizeLinear and DequantizeLinear into a float graph.

ONNX Runtime without optimisation computes it as the definition says: round, dequantize, compute in float. So it tells what
quantization alone does, without a toolchain's fusions and kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.errors import ArtifactError, TargetError
from edgekd.quantize.grids import Grid, Placement
from edgekd.quantize.ptq import WEIGHTED
from edgekd.quantize.ranges import Scale, integers
from edgekd.rewrites.graph import Graph, name_nodes, opsets

_OPSETS = {8: 13, 16: 21}  # the first with an axis, and with 16 bits


def insert_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    scales: Mapping[str, Scale],
    nodes: Collection[str] | None = None,
    is_shared: bool = False,
    weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """Return a copy of a float graph in which quantized operators read Q/DQ pairs. Its inputs and outputs stay the same.

    All quantized readers of an activation share one pair. A weight is an integer initializer with a DequantizeLinear. Biases
    stay float.

    Args:
        model: the graph that the placement was made for, with its weights.
        placement: the quantized operators and the grids of their inputs.
        scales: scale of each activation and weight, by tensor.
        nodes: names of the operators that read quantized inputs; None: all of the placement.
        is_shared: all other readers of these activations read the pair, too: sums and pools, as in the files of qdq_signed.
            Fake quantization in torch reaches operators with weights only.
        weights: integers of weights by tensor; None, and others: the nearest.

    Raises:
        TargetError: the graph's opset lacks such Q/DQ pairs.
        ArtifactError: the placement was made for another graph.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    name_nodes(made)
    chosen = placement if nodes is None else placement.only(nodes)
    grids = {**chosen.activations, **chosen.weights}
    _check_opset(made, list(grids.values()))
    reads = {node.name: {*node.activations, node.weight} for node in chosen.nodes}
    missing = sorted(set(reads) - {node.name for node in made.graph.node})
    if missing:
        raise ArtifactError(f"the graph has no node {missing[0]!r}, which the placement names; make it for this graph")
    others = set(chosen.activations) if is_shared else set()
    graph = Graph(made)
    written: dict[str, str] = {}
    ordered: list[onnx.NodeProto] = []
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            if name not in (
                reads[node.name] if node.name in reads and (place < 2 or node.op_type not in WEIGHTED) else others
            ):
                continue
            if name not in written:
                if name in chosen.weights:
                    whole = (weights or {}).get(name)
                    if whole is None:
                        whole = integers(graph.value(name), scales[name], grids[name], grids[name].axis)
                    ordered += _weight(made, whole, name, grids[name], scales[name])
                else:
                    ordered += _activation(made, name, grids[name], scales[name])
                written[name] = ordered[-1].output[0]
            node.input[place] = written[name]
        ordered.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    _drop_unread(made, set(chosen.weights))
    return made


def _check_opset(model: onnx.ModelProto, grids: list[Grid]) -> None:
    have = opsets(model)["ai.onnx"]
    need = max((_OPSETS[8 * grid.dtype.itemsize] for grid in grids), default=0)
    if have < need:
        raise TargetError(
            f"Q/DQ pairs of these grids need ONNX opset {need}, the graph has {have}; set export.opset={need}"
        )


def _activation(model: onnx.ModelProto, name: str, grid: Grid, scale: Scale) -> list[onnx.NodeProto]:
    """Return the pair of an activation; a grid of fewer levels than its type has a Clip in front."""
    inputs = _parameters(model, name, scale)
    first, last = grid.levels
    limits = np.iinfo(grid.dtype)
    before, source = [], name
    if (first, last) != (limits.min, limits.max):
        ends = [f"{name}_lowest", f"{name}_highest"]
        for end, level in zip(ends, (first, last), strict=True):
            value = (np.float32(level) - scale.zero_point.astype(np.float32)) * scale.scale
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), end))
        source = f"{name}_clipped"
        before = [helper.make_node("Clip", [name, *ends], [source], name=source)]
    q, dq = f"{name}_quantized", f"{name}_dequantized"
    return [
        *before,
        helper.make_node("QuantizeLinear", [source, *inputs], [q], name=q),
        helper.make_node("DequantizeLinear", [q, *inputs], [dq], name=dq),
    ]


def _weight(model: onnx.ModelProto, whole: np.ndarray, name: str, grid: Grid, scale: Scale) -> list[onnx.NodeProto]:
    q, dq = f"{name}_quantized", f"{name}_dequantized"
    model.graph.initializer.append(numpy_helper.from_array(whole, q))
    axis: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis}
    return [helper.make_node("DequantizeLinear", [q, *_parameters(model, name, scale)], [dq], name=dq, **axis)]


def _parameters(model: onnx.ModelProto, name: str, scale: Scale) -> list[str]:
    names = [f"{name}_scale", f"{name}_zero_point"]
    for one, value in zip(names, (scale.scale, scale.zero_point), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), one))
    return names


def _drop_unread(model: onnx.ModelProto, weights: set[str]) -> None:
    """Remove the float weights that nobody reads any more."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [one for one in model.graph.initializer if one.name not in weights or one.name in read]
    if len(kept) < len(model.graph.initializer):
        copies = [onnx.TensorProto.FromString(one.SerializeToString()) for one in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)

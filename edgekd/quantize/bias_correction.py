"""Empirical bias correction: adds to each bias the mean that quantization takes from its channel's output.

Rounded weights shift the mean of an output channel, and the shift adds up through the network. Operators are corrected in graph
order, each in the quantized graph whose earlier operators are corrected, as they will run.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2 and
appendix D (empirical bias correction).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.quantize.grids import Placement
from edgekd.quantize.ptq import Batch
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import Run, runner
from edgekd.rewrites.graph import Graph, attributes

_INPUT = ".corrected_bias"
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")  # MatMul has none


def correct_biases(
    model: onnx.ModelProto, placement: Placement, scales: Mapping[str, Scale], calibration: Sequence[Batch]
) -> list[str]:
    """Correct the biases of a float graph in place; return the names of the operators, each of which now has its own bias.

    Args:
        model: the graph that the placement was made for, with its weights and with named nodes.
        placement: the quantized operators.
        scales: scale of each activation and weight.
        calibration: network inputs by name; read once for the float graph and once for each operator.

    Raises:
        TargetError: ONNX Runtime is not installed.
    """
    graph = Graph(model)
    by_name = {node.name: node for node in model.graph.node}
    nodes = [by_name[one.name] for one in placement.nodes if by_name[one.name].op_type in _WITH_BIAS]
    nodes = [node for node in nodes if _has_one_bias(graph, node)]
    if not nodes:
        return []
    biases = {node.name: _bias(graph, node) for node in nodes}
    with TemporaryDirectory() as folder:
        run = runner(model, [node.output[0] for node in nodes], Path(folder))
        wanted = _means(run, calibration)
        quantized = insert_qdq(model, placement, scales)
        _feed_biases(quantized, nodes, biases)
        rerun = runner(quantized, [node.output[0] for node in nodes], Path(folder))
        for node, mean in zip(nodes, wanted, strict=True):
            fed = {f"{name}{_INPUT}": value for name, value in biases.items()}
            total = np.zeros_like(mean)
            for batch in calibration:
                total += _channel_mean(rerun({**batch, **fed}, [node.output[0]])[0])
            biases[node.name] = (biases[node.name] + mean - total / len(calibration)).astype(np.float32)
    for node in nodes:
        _set_bias(model, node, biases[node.name])
    return [node.name for node in nodes]


def _has_one_bias(graph: Graph, node: Any) -> bool:
    """Whether a node's bias is absent or a constant of one value for each channel."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    return node.input[2] in graph.constants and len(graph.shape(node.input[2]) or ()) == 1


def _bias(graph: Graph, node: Any) -> np.ndarray:
    if len(node.input) > 2 and node.input[2]:
        return graph.value(node.input[2]).astype(np.float32)
    shape = graph.shape(node.input[1]) or ()
    if node.op_type == "ConvTranspose":
        return np.zeros(shape[1] * attributes(node).get("group", 1), np.float32)
    is_transposed = node.op_type == "Conv" or attributes(node).get("transB", 0)
    return np.zeros(shape[0] if is_transposed else shape[1], np.float32)


def _means(run: Run, calibration: Sequence[Batch]) -> list[np.ndarray]:
    """Return the mean of each tensor's channels over all images, one image in memory at a time."""
    totals: list[np.ndarray] = []
    for batch in calibration:
        found = [_channel_mean(value) for value in run(batch)]
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
    return [total / len(calibration) for total in totals]


def _channel_mean(value: np.ndarray) -> np.ndarray:
    """Return the mean over all axes but that of the channels, the second, in float64."""
    return np.asarray(value.mean(axis=tuple(axis for axis in range(value.ndim) if axis != 1), dtype=np.float64))


def _feed_biases(quantized: onnx.ModelProto, nodes: Sequence[Any], biases: Mapping[str, np.ndarray]) -> None:
    """Make the biases of a graph inputs, so that one session serves all corrections."""
    known = {node.name: node for node in quantized.graph.node}
    for node in nodes:
        name = f"{node.name}{_INPUT}"
        _name_bias(known[node.name], name)
        shape = biases[node.name].shape
        quantized.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _name_bias(node: Any, name: str) -> None:
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)


def _set_bias(model: onnx.ModelProto, node: Any, value: np.ndarray) -> None:
    """Give a node a bias of its own: two nodes may share one and be shifted differently."""
    name = f"{node.name}{_INPUT}"
    taken = {one.name for one in model.graph.initializer}
    while name in taken:
        name += "_"
    _name_bias(node, name)
    model.graph.initializer.append(numpy_helper.from_array(value, name))

"""Reads an IR with FakeQuantize operators and int8 weights back on the ONNX graph that it was made from.

OpenVINO's Python package computes an IR with its CPU plugin only, which fuses quantized operators; the reference plugin
(TEMPLATE) is not in it. So the reference is a Q/DQ graph with the IR's own ranges, integer weights and (corrected) biases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from edgekd.errors import ArtifactError
from edgekd.quantize.grids import Grid, Placement, QuantizedNode, channel_axis
from edgekd.quantize.ranges import Scale
from edgekd.quantize.read_back import ReadBack, from_scales
from edgekd.rewrites.graph import Graph, name_nodes, read_onnx
from edgekd.targets.openvino.runtime import read_model

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


def read_back(quantized: Path, model: Path) -> ReadBack:
    """Return the quantized nodes and scales of an NNCF IR by ONNX names; errors as `edgekd.quantize.read_back.read_back`.

    Operators of the IR are those of the graph by name and tensor name. A FakeQuantize on a tensor that has no name in the graph,
    inside an operator that OpenVINO splits, is left out; `left_out` names this operator.
    """
    source = read_onnx(model)
    name_nodes(source)
    reader = _Reader(Graph(source, model))
    for op in read_model(quantized).get_ordered_ops():
        reader.add(op)
    if not reader.reads:
        raise ArtifactError(
            f"{quantized}: none of its quantized operators is in {model}; delete {quantized.parent} and run again"
        )
    _set_biases(source, reader.biases)
    back = from_scales(source, reader.placement(), reader.scales, frozenset(reader.left_out))
    _set_integers(back.graph, reader.integers)
    return back


class _Reader:
    """Collects, operator by operator, what an IR quantizes of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.twins = {node.name: node for node in graph.nodes}
        for value in graph.outputs:  # OpenVINO gives the node behind an output the output's name
            node = graph.producer(value.name)
            if node is not None:
                self.twins.setdefault(value.name, node)
        self.reads: dict[str, list[str]] = {}
        self.weight_of: dict[str, str] = {}
        self.activations: dict[str, Grid] = {}
        self.weights: dict[str, Grid] = {}
        self.scales: dict[str, Scale] = {}
        self.biases: dict[str, np.ndarray] = {}
        self.left_out: set[str] = set()
        self.integers: dict[str, np.ndarray] = {}

    def add(self, op: Any) -> None:
        """Take an operator's quantized inputs, and its bias."""
        if op.get_type_name() in ("Constant", "Convert", "FakeQuantize", "Result"):
            return
        twin = self._twin(op)
        if twin is None:
            if any(port.get_source_output().get_node().get_type_name() == "FakeQuantize" for port in op.inputs()):
                self.left_out |= self._wholes(op)
            return
        for port in op.inputs():
            before = port.get_source_output().get_node()
            if before.get_type_name() == "FakeQuantize":
                self._activation(twin, before)
        if op.get_type_name() in _WEIGHTED:
            self._weight(twin, op)
        elif op.get_type_name() == "Add":
            self._bias(twin, op)

    def _twin(self, op: Any) -> Any:
        """Return the graph's operator with the name of an operator, or that it is a named part of; None for others."""
        name = op.get_friendly_name()
        return self.twins.get(name) or self.twins.get(name.rpartition("/")[0])

    def _wholes(self, part: Any) -> set[str]:
        """Return the graph's operators that the results of an operator without a name lead to: it is a part of them."""
        pending, found = [part], set()
        while pending:
            for output in pending.pop().outputs():
                for port in output.get_target_inputs():
                    twin = self._twin(port.get_node())
                    if twin is None:
                        pending.append(port.get_node())
                    else:
                        found.add(twin.name)
        return found

    def placement(self) -> Placement:
        """Return the placement, in graph order."""
        nodes = tuple(
            QuantizedNode(node.name, tuple(dict.fromkeys(self.reads.get(node.name, ()))), self.weight_of.get(node.name))
            for node in self.graph.nodes
            if node.name in self.reads or node.name in self.weight_of
        )
        return Placement(nodes, self.activations, self.weights)

    def _activation(self, twin: Any, fake: Any) -> None:
        names = fake.input(0).get_source_output().get_names()
        tensor = next((name for name in twin.input if name in names), None)
        if tensor is None:
            self.left_out.add(twin.name)
            return
        low, high = (fake.input(place).get_source_output().get_node().get_data().ravel() for place in (1, 2))
        self.reads.setdefault(twin.name, []).append(tensor)
        self.activations[tensor], self.scales[tensor] = _grid(low, high, fake.get_attributes()["levels"])

    def _weight(self, twin: Any, op: Any) -> None:
        scaled = op.input(1).get_source_output().get_node()
        while scaled.get_type_name() in ("Reshape", "Convert", "Transpose"):
            scaled = scaled.input(0).get_source_output().get_node()
        if scaled.get_type_name() != "Multiply":
            return
        whole, factor = (scaled.input(place).get_source_output().get_node() for place in (0, 1))
        whole = whole.input(0).get_source_output().get_node() if whole.get_type_name() == "Convert" else whole
        name = next((one for one in twin.input[:2] if one in self.graph.constants), None)
        if name is None or whole.get_type_name() != "Constant":
            return
        scale = factor.get_data().astype(np.float32).ravel()
        axis = channel_axis(twin, name) if scale.size > 1 else None
        shape = self.graph.shape(name)
        if axis is not None and (shape is None or shape[axis] != scale.size):
            self.left_out.add(twin.name)  # grouped: scales that an ONNX axis cannot hold
            return
        largest = min(127, max(1, int(np.abs(whole.get_data().astype(np.int64)).max())))
        self.weight_of[twin.name] = name
        self.integers[name] = whole.get_data().astype(np.int8)
        self.weights[name] = Grid(8, is_signed=True, is_symmetric=True, axis=axis, largest=largest)
        scale = scale if axis is not None else scale[:1].reshape(())
        self.scales[name] = Scale(scale, np.zeros(scale.shape, np.int8))

    def _bias(self, twin: Any, op: Any) -> None:
        """Take the bias behind a convolution, which the scheme may have corrected."""
        if twin.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(twin.input) < 3:
            return
        for place in (0, 1):
            constant = op.input(place).get_source_output().get_node()
            if constant.get_type_name() == "Constant":
                self.biases[twin.input[2]] = constant.get_data().astype(np.float32).ravel()


def _grid(low: np.ndarray, high: np.ndarray, levels: int) -> tuple[Grid, Scale]:
    """Return the grid of a range: int8 with zero point 0 where it is symmetric, else uint8."""
    axis = 1 if low.size > 1 else None
    scale = ((high - low) / (levels - 1)).astype(np.float32)
    zero = np.round(-low / scale)
    is_signed = bool((low < 0).any() and (np.abs(zero - levels // 2) < 1e-3).all())
    if is_signed:
        zero = np.zeros_like(zero)
    zero = zero.astype(np.int8 if is_signed else np.uint8)
    largest = None if levels == 256 else (levels - 1) // (2 if is_signed else 1)
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    return Grid(8, is_signed, not zero.any(), axis, largest), Scale(scale, zero)


def _set_integers(quantized: Any, integers: dict[str, np.ndarray]) -> None:
    """Give a Q/DQ graph the IR's own integers of weights.

    The largest weight of a channel is 63.5 steps with 7 bits, so it rounds to 63 or 64 by the last bit of its scale. Where integers
    differ by more, OpenVINO has laid out the weight in another order, and the graph's own stay.
    """
    for tensor in quantized.graph.initializer:
        found = integers.get(tensor.name.removesuffix("_quantized"))
        if found is None or not tensor.name.endswith("_quantized"):
            continue
        ours = numpy_helper.to_array(tensor)
        if found.size == ours.size and np.abs(found.reshape(ours.shape).astype(int) - ours).max() <= 1:
            tensor.CopyFrom(numpy_helper.from_array(found.reshape(ours.shape), tensor.name))


def _set_biases(model: Any, biases: dict[str, np.ndarray]) -> None:

    for tensor in model.graph.initializer:
        if tensor.name in biases and int(np.prod(tensor.dims)) == biases[tensor.name].size:
            value = biases[tensor.name].reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

"""Quantization error of each operator: alone, and accumulated in the fully quantized graph. No labels, no toolchain.

*Alone*: only this operator reads quantized inputs, and the error is that of the network's outputs. It says what the operator costs,
and what leaving it in float can gain. *Accumulated*: the error of this operator's own output when all operators are quantized. It
grows along the graph, so its lowest value names where the errors of earlier operators arrive, not where they come from.

Errors are signal-to-quantization-noise ratios in dB: 10 log10(sum of squares of the float values / sum of squares of the
differences), over all values of a tensor and all images. 6 dB are one bit, 3 dB halve the noise. ONNX Runtime computes the graphs of
`insert_qdq` without optimisation, image by image; of all images only the float outputs are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.detection import DECODE
from edgekd.quantize.grids import Placement
from edgekd.quantize.ptq import Batch, check_calibration
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph

EQUAL_DB = 200.0  # the ratio of tensors that do not differ; float32 resolves about 150 dB
# What follows the numbers that the network computes: labels and lists of detections have no noise in dB.
_DECIDES = ("ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "Cast")
# They take the one tensor that an operator gives to the next, and toolchains fuse them into the operator.
_ACTIVATIONS = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Softplus", "Tanh")


@dataclass
class Noise:
    """Sums of squares of the expected values and of the differences, over values and images."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        """Add the values of one tensor on one image; a value that is not finite is infinite noise."""
        wanted = expected.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):
            error = got.astype(np.float64).ravel() - wanted
        squares = float(error @ error)
        self.signal += float(wanted @ wanted)
        self.noise += squares if math.isfinite(squares) else math.inf

    @property
    def share(self) -> float:
        """The power of the noise as a fraction of the signal's."""
        if not self.noise:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def db(self) -> float:
        """The ratio of signal and noise in dB, see `to_db`."""
        return to_db(self.share)


def to_db(share: float) -> float:
    """Return a noise share in dB: at most EQUAL_DB, at least -EQUAL_DB."""
    if share <= 0:
        return EQUAL_DB
    return -EQUAL_DB if math.isinf(share) else max(-EQUAL_DB, min(EQUAL_DB, -10 * math.log10(share)))


def to_share(db: float) -> float:
    """Return the noise share of a ratio in dB."""
    return 0.0 if db >= EQUAL_DB else 10 ** (-db / 10)


def alone(
    model: Any,
    placement: Placement,
    scales: Mapping[str, Scale],
    images: Sequence[Batch],
    nodes: Collection[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Return the SQNR of the network's outputs in dB when a node alone is quantized, by node in graph order.

    With several outputs the noise shares are averaged, so that an output of large values does not hide the others. The cost is a
    run of the graph for each node and image, and one for each image in float.

    Args:
        model: the float graph (`onnx.ModelProto`) that the placement was made for, with its weights.
        placement: the quantized operators.
        scales: of activations and weights by tensor.
        images: network inputs by name, prepared as the contract says; read once per node.
        nodes: of the placement, those to measure; None: all.
        progress: called with the number of nodes done, and of all.

    Raises:
        DataError: no images.
        TargetError: ONNX Runtime is not installed, or the graph's opset lacks such Q/DQ pairs.
    """
    check_calibration(images)
    outputs = answers(Graph(model))
    wanted = [node.name for node in placement.nodes if nodes is None or node.name in nodes]
    expected = list(_runs(model, outputs, images))
    found = {}
    for done, name in enumerate(wanted):
        noises = [Noise() for _ in outputs]
        made = insert_qdq(model, placement, scales, [name])
        for float_values, values in zip(expected, _runs(made, outputs, images), strict=True):
            for noise, one, other in zip(noises, float_values, values, strict=True):
                noise.add(one, other)
        found[name] = to_db(sum(noise.share for noise in noises) / len(noises))
        progress(done + 1, len(wanted))
    return found


def accumulated(
    model: Any, placement: Placement, scales: Mapping[str, Scale], images: Sequence[Batch]
) -> dict[str, float]:
    """Return the SQNR of each node's output in dB when all nodes of the placement are quantized, by node in graph order.

    A node's output is that of the activation function behind it (`output_of`). Arguments and errors as in `alone`. The cost is
    two runs of the graph for each image.
    """
    graph = named(model)
    tensors = {node.name: output_of(graph, graph_node) for node, graph_node in _placed(graph, placement)}
    found = compared(model, insert_qdq(model, placement, scales), list(dict.fromkeys(tensors.values())), images)
    return {name: found[tensor] for name, tensor in tensors.items()}


def compared(model: Any, other: Any, tensors: Sequence[str], images: Sequence[Batch]) -> dict[str, float]:
    """Return the SQNR in dB of tensors of another graph against those of the same names in a graph, by tensor.

    Raises:
        DataError: no images.
        TargetError: ONNX Runtime is not installed.
    """
    check_calibration(images)
    noises = [Noise() for _ in tensors]
    for expected, got in zip(_runs(model, tensors, images), _runs(other, tensors, images), strict=True):
        for noise, one, two in zip(noises, expected, got, strict=True):
            noise.add(one, two)
    return {name: noise.db for name, noise in zip(tensors, noises, strict=True)}


def answers(graph: Graph) -> list[str]:
    """Return the tensors whose noise is the network's: its outputs, or the numbers that labels and detections are made of."""
    found: dict[str, None] = {}
    pending, seen = [value.name for value in graph.outputs], set(graph.constants)
    while pending:
        name = pending.pop(0)
        node = graph.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in _DECIDES or node.name.startswith(DECODE):
            pending += node.input
        else:
            found[name] = None
    return list(found)


def output_of(graph: Graph, node: Any) -> str:
    """Return the tensor that a node gives to the next, see `outputs_of`."""
    return outputs_of(graph, node)[-1]


def outputs_of(graph: Graph, node: Any) -> tuple[str, ...]:
    """Return a node's output and, after it, the output of each activation function behind it that nothing else reads before."""
    names = [str(node.output[0])]
    while (following := _behind(graph, names[-1])) is not None:
        names.append(following)
    return tuple(names)


def _behind(graph: Graph, tensor: str) -> str | None:
    """Return the output of the activation function that is a tensor's only reader, x * sigmoid(x) included."""
    readers = {} if graph.is_output(tensor) else {id(one): one for one in graph.readers(tensor)}
    if len(readers) == 1:
        (reader,) = readers.values()
        return str(reader.output[0]) if reader.op_type in _ACTIVATIONS else None
    gate = next((one for one in readers.values() if one.op_type in ("Sigmoid", "HardSigmoid")), None)
    product = None if gate is None or len(readers) != 2 else graph.only_reader(gate.output[0])
    if product is None or product.op_type != "Mul" or id(product) not in readers:
        return None
    return str(product.output[0])


def named(model: Any) -> Graph:
    """Return the graph of a model with the node names that `insert_qdq` gives, without changing the model."""
    import onnx

    from edgekd.rewrites.graph import name_nodes

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    return Graph(copy)


def _placed(graph: Graph, placement: Placement) -> list[tuple[Any, Any]]:
    by_name = {node.name: node for node in graph.nodes}
    return [(node, by_name[node.name]) for node in placement.nodes]


def _runs(model: Any, tensors: Sequence[str], images: Sequence[Batch]) -> Iterator[list[np.ndarray]]:
    """Yield the values of tensors for each image."""
    with TemporaryDirectory() as folder:
        run = runner(model, tensors, Path(folder))
        for place in range(len(images)):
            yield run(images[place])

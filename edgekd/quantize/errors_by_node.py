"""Quantization error of each layer: alone, and accumulated in the quantized graph. No labels, no toolchain.

*Alone*: only one operator, or those of one layer, reads quantized inputs, and the error is that of the network's outputs. It says
what the layer costs, and what leaving it in float can gain. With several outputs the noise shares are averaged, so that an output of
large values does not hide the others, and the shares of layers add up. *Accumulated*: the error of what the next layer reads, when
all are quantized. It grows along the graph, so its lowest value names where the errors of earlier layers arrive, not where they
come from.

ONNX Runtime computes the Q/DQ pairs without integer kernels and optimises the float operators between them (`runner`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.detection import DECODE
from edgekd.quantize.grids import Placement
from edgekd.quantize.noise import Noise, to_db
from edgekd.quantize.ptq import Batch, check_calibration
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph

# What follows the numbers that the network computes: labels and lists of detections have no noise in dB.
_DECIDES = ("ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "Cast")
# They take the one tensor that an operator gives to the next, and toolchains fuse them into the operator.
_ACTIVATIONS = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Softplus", "Tanh")
_TAPPED_BYTES = 256 << 20  # of the tensors that one pass compares, for one image


class OutputNoise:
    """The noise that sets of quantized operators make at the network's outputs, on the same few images.

    Inputs and float outputs of the images lie on disk, so memory does not grow with their number.

    Args:
        model: the float graph (`onnx.ModelProto`) that the placement was made for, with its weights.
        placement: the quantized operators.
        scales: of activations and weights by tensor.
        images: network inputs by name, prepared as the contract says; each is read once.
        folder: an existing folder for inputs, outputs and graphs.
        weights: integers of weights by tensor; None, and others: the nearest.

    Raises:
        DataError: no images.
        TargetError: ONNX Runtime is not installed, or the graph's opset lacks such Q/DQ pairs.
    """

    def __init__(
        self,
        model: Any,
        placement: Placement,
        scales: Mapping[str, Scale],
        images: Sequence[Batch],
        folder: Path,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        check_calibration(images)
        self._weights = weights
        self._model, self._placement, self._scales, self._folder = model, placement, scales, folder
        self._outputs = answers(Graph(model))
        self._files = [folder / f"{number:05}" for number in range(len(images))]
        run = runner(model, self._outputs, folder, is_optimised=True)
        for number, file in enumerate(self._files):
            batch = images[number]
            np.savez(file.with_suffix(".in.npz"), **batch)  # type: ignore[arg-type]  # names of tensors
            np.savez(file.with_suffix(".out.npz"), *run(batch))

    def db(self, nodes: Collection[str]) -> float:
        """Return the signal-to-noise ratio of the outputs in dB with these operators quantized."""
        made = insert_qdq(self._model, self._placement, self._scales, nodes, weights=self._weights)
        run = runner(made, self._outputs, self._folder, is_optimised=True)
        noises = [Noise() for _ in self._outputs]
        for file in self._files:
            expected = _arrays(file.with_suffix(".out.npz")).values()
            got = run(_arrays(file.with_suffix(".in.npz")))
            for noise, one, other in zip(noises, expected, got, strict=True):
                noise.add(one, other)
        return to_db(sum(noise.share for noise in noises) / len(noises))


def accumulated(
    model: Any, quantized: Any, tensors: Mapping[str, tuple[str, str]], images: Sequence[Batch]
) -> dict[str, float]:
    """Return the signal-to-noise ratio in dB of what is read behind each layer of a quantized graph.

    The cost is two runs of the graph for each image, more where the tensors of one image do not fit in 256 MiB.

    Args:
        model: the float graph (`onnx.ModelProto`).
        quantized: its Q/DQ graph.
        tensors: by layer, the name of a tensor in the float graph and in the Q/DQ graph, see `next_reads`.
        images: network inputs by name.

    Raises:
        DataError: no images.
        TargetError: ONNX Runtime is not installed.
    """
    check_calibration(images)
    noises = {layer: Noise() for layer in tensors}
    for part in _parts(Graph(model), tensors):
        with TemporaryDirectory(prefix="edgekd-accumulated-") as text:
            runs = [_runner(side, graph, part, Path(text)) for side, graph in enumerate((model, quantized))]
            for place in range(len(images)):
                batch = images[place]
                for layer, one, other in zip(part, *(run(batch) for run in runs), strict=True):
                    noises[layer].add(one, other)
    return {layer: noise.db for layer, noise in noises.items()}


def _runner(side: int, model: Any, part: Mapping[str, tuple[str, str]], folder: Path) -> Any:
    (folder / str(side)).mkdir()
    return runner(model, [names[side] for names in part.values()], folder / str(side), is_optimised=True)


def _parts(graph: Graph, tensors: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, tuple[str, str]]]:
    """Yield the layers in parts whose tensors take at most `_TAPPED_BYTES`, at least one layer each."""
    part: dict[str, tuple[str, str]] = {}
    size = 0
    for layer, names in tensors.items():
        bytes_ = 4 * int(np.prod(graph.shape(names[0]) or (), dtype=np.int64))
        if part and size + bytes_ > _TAPPED_BYTES:
            yield part
            part, size = {}, 0
        part[layer] = names
        size += bytes_
    if part:
        yield part


def next_reads(tensors: Sequence[str], quantized: Graph, has_pairs: bool = True) -> tuple[str, str] | None:
    """Return the names of the tensor that the next operator reads, in the float graph and in the Q/DQ graph.

    In the Q/DQ graph it is the dequantized tensor where there is one. A quantizer may have merged the activation function into the
    pair; the name stays its own.

    Args:
        tensors: names of the layer's output, the one that is read first; later ones stand in where the graph lacks it.
        quantized: the Q/DQ graph.
        has_pairs: whether the names of its Q/DQ pairs are asked for.
    """
    for name in tensors:
        if quantized.producer(name) is not None:
            return name, (_dequantized(quantized, name) if has_pairs else None) or name
    return None


def _dequantized(graph: Graph, tensor: str) -> str | None:
    """Return the output of the Q/DQ pair behind a tensor."""
    quantized = [one.output[0] for one in graph.readers(tensor) if one.op_type == "QuantizeLinear"]
    pairs = [one for name in quantized for one in graph.readers(name) if one.op_type == "DequantizeLinear"]
    return str(pairs[0].output[0]) if pairs else None


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


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}

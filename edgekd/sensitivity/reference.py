"""The reference Q/DQ graph with any set of operators in int8, and what that set costs at the outputs.

ONNX Runtime computes Q/DQ pairs as they stand (`session.disable_quant_qdq`), so no integer kernel and no fusion of a target is in
the answer. The float operators between them are optimised: that is several times faster than a graph without optimisation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.core import plugins
from edgekd.executors.local import REFERENCE_TARGET
from edgekd.quantize.errors_by_node import answers
from edgekd.quantize.grids import Placement
from edgekd.quantize.ptq import Batch
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.rewrites.graph import Graph, name_nodes, read_onnx
from edgekd.sensitivity.sqnr import Sqnr

_TAPPED_BYTES = 256 << 20  # of the tensors that one pass compares, for one image
_LARGE_BYTES = 1 << 30


class Reference:
    """The float graph, and the same graph with some operators in int8.

    Args:
        model: float ONNX file.
        spec: its contract.
        placement: the operators that a quantizer puts in int8, and the grids.
        scales: of all tensors of the placement.
        folder: an existing folder for the graphs.
    """

    def __init__(
        self, model: Path, spec: ModelSpec, placement: Placement, scales: Mapping[str, Scale], folder: Path
    ) -> None:
        self._float = read_onnx(model)
        name_nodes(self._float)
        self.spec, self.graph = spec, Graph(self._float)
        self._placement, self._scales, self._folder = placement, scales, folder
        self.nodes = tuple(node.name for node in placement.nodes)

    @contextmanager
    def open(self, quantized: Collection[str], taps: Sequence[str] = ()) -> Iterator[Session]:
        """Open the graph with some operators in int8.

        Args:
            quantized: names of operators of the placement.
            taps: tensors that the session returns in place of the outputs.
        """
        import onnx

        made = insert_qdq(self._float, self._placement, self._scales, quantized)
        spec = self.spec
        if taps:
            have = {value.name for value in made.graph.output}
            made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps if name not in have)
            shapes = {name: self.graph.shape(name) or () for name in taps}
            spec = replace(
                spec, outputs=tuple(TensorSpec(name, "float32", shape, "tap") for name, shape in shapes.items())
            )
        path = self._folder / "reference.onnx"
        onnx.save(made, path, save_as_external_data=made.ByteSize() > _LARGE_BYTES)
        target = plugins.target(REFERENCE_TARGET)
        options = target.options(session_config={"session.disable_quant_qdq": "1"})
        with target.session(path, spec, options) as session:
            yield session

    def outputs_of(self, nodes: Sequence[str]) -> dict[str, str]:
        """Return the first output tensor of nodes, by node."""
        wanted = set(nodes)
        return {node.name: node.output[0] for node in self.graph.nodes if node.name in wanted}


class Noise:
    """The noise that sets of operators in int8 make, against the float graph, on the same few images.

    The inputs and the float outputs of these images lie on disk, so memory does not grow with their number.

    Args:
        reference: the graph.
        inputs: network inputs, read once.
        folder: an existing folder.
    """

    def __init__(self, reference: Reference, inputs: Sequence[Batch], folder: Path) -> None:
        self._reference, self._heads = reference, answers(reference.graph)
        self._files = [folder / f"{number:05}" for number in range(len(inputs))]
        with reference.open((), self._heads) as session:
            for file, batch in zip(self._files, inputs, strict=True):
                np.savez(file.with_suffix(".in.npz"), **batch)  # type: ignore[arg-type]  # names of tensors
                np.savez(file.with_suffix(".out.npz"), **session.infer(dict(batch)))  # type: ignore[arg-type]

    def sqnr(self, quantized: Collection[str]) -> float:
        """Return the SQNR in dB of the worst output with these operators in int8, summed over the images."""
        sums = Sqnr()
        with self._reference.open(quantized, self._heads) as session:
            for file in self._files:
                sums.add(_arrays(file.with_suffix(".out.npz")), session.infer(_arrays(file.with_suffix(".in.npz"))))
        return sums.worst()

    def accumulated(self) -> dict[str, float]:
        """Return the SQNR in dB of each operator's own output with all operators in int8, by operator."""
        outputs = self._reference.outputs_of(self._reference.nodes)
        found: dict[str, float] = {}
        for part in self._parts(list(outputs.values())):
            sums = Sqnr()
            with (
                self._reference.open((), part) as floating,
                self._reference.open(self._reference.nodes, part) as integer,
            ):
                for file in self._files:
                    batch = _arrays(file.with_suffix(".in.npz"))
                    sums.add(floating.infer(batch), integer.infer(batch))
            found |= sums.by_tensor()
        return {node: found[tensor] for node, tensor in outputs.items()}

    def _parts(self, tensors: list[str]) -> Iterator[list[str]]:
        """Yield the tensors in parts of at most `_TAPPED_BYTES`, at least one each."""
        part: list[str] = []
        size = 0
        for name in tensors:
            bytes_ = 4 * int(np.prod(self._reference.graph.shape(name) or (), dtype=np.int64))
            if part and size + bytes_ > _TAPPED_BYTES:
                yield part
                part, size = [], 0
            part.append(name)
            size += bytes_
        if part:
            yield part


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}

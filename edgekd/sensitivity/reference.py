"""The reference Q/DQ graph with any set of operators in int8: what that set costs at the outputs, and a session to score it.

ONNX Runtime computes Q/DQ pairs in float (`session.disable_quant_qdq`), so no integer kernel and no fusion of a target is in
the answer. The float operators between them are optimised: that is several times faster than a graph without optimisation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.executors.local import REFERENCE_TARGET
from edgekd.quantize.errors_by_node import OutputNoise, accumulated, next_reads, outputs_of
from edgekd.quantize.grids import Placement
from edgekd.quantize.ptq import Batch
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.rewrites.graph import Graph, name_nodes, read_onnx

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
    def open(self, quantized: Collection[str]) -> Iterator[Session]:
        """Open the graph with these operators of the placement in int8."""
        import onnx

        made = insert_qdq(self._float, self._placement, self._scales, quantized)
        path = self._folder / "reference.onnx"
        onnx.save(made, path, save_as_external_data=made.ByteSize() > _LARGE_BYTES)
        target = plugins.target(REFERENCE_TARGET)
        options = target.options(session_config={"session.disable_quant_qdq": "1"})
        with target.session(path, self.spec, options) as session:
            yield session

    def noise(self, images: Sequence[Batch]) -> OutputNoise:
        """Return the noise of sets of operators on some network inputs; their arrays lie in the reference's folder."""
        return OutputNoise(self._float, self._placement, self._scales, images, self._folder)

    def accumulated(self, images: Sequence[Batch]) -> dict[str, float]:
        """Return the accumulated error of each operator in dB with all operators in int8, see `errors_by_node`."""
        made = insert_qdq(self._float, self._placement, self._scales)
        quantized = Graph(made)
        by_name = {node.name: node for node in self.graph.nodes}
        tensors = {}
        for name in self.nodes:
            found = next_reads(outputs_of(self.graph, by_name[name])[::-1], quantized)
            assert found is not None  # the Q/DQ graph has every operator of the float one
            tensors[name] = found
        return accumulated(self._float, made, tensors, images)

"""The layers of an exported graph, and the graph cut at its layers: each computes from tensors that are handed in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.board.detection import DECODE
from edgekd.quantize.errors_by_node import next_reads, outputs_of
from edgekd.quantize.macs import macs_by_node
from edgekd.rewrites.graph import Graph, folded, inferred, module_of, name_of

OWN = "@own"  # behind the name of a tensor that a cut graph computes
# They move values and compute none.
_MOVES = (
    "Cast", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
_FLOAT = 1  # TensorProto.FLOAT


@dataclass(frozen=True)
class Layer:
    """An operator with the activation function behind it.

    name: the ONNX node.
    op: its kind.
    module: the torch module that it came from, "" when the file does not say.
    tensors: names of its output, from behind the activation function to before it: a toolchain may drop some.
    macs: share of the network's multiply-adds.
    nodes: all its operators: itself, its activation function, and those before it that only move values.
    """

    name: str
    op: str
    module: str
    tensors: tuple[str, ...]
    macs: float
    nodes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name for a reader."""
        return f"{self.module} ({self.op})" if self.module else self.name


def layers_of(graph: Graph) -> list[Layer]:
    """Return the layers of a float graph with named nodes, in graph order, up to the network's numbers."""
    macs = macs_by_node(graph)
    total = sum(macs.values()) or 1
    floats = {value.name for value in _values(graph) if value.type.tensor_type.elem_type == _FLOAT}
    constants, inside = set(folded(graph)), set()
    found = []
    for node in graph.nodes:
        outputs = set(node.output)
        if node.name in inside or node.op_type in _MOVES or node.name.startswith(DECODE):
            continue
        if not outputs <= floats or outputs <= constants:
            continue
        tensors = outputs_of(graph, node)[::-1]
        behind = {one.name: one for name in tensors[1:] for one in graph.readers(name)}
        inside |= set(behind)
        share = macs.get(name_of(node), 0) / total
        moves = _moves_before(graph, [node, *behind.values()])
        nodes = tuple(dict.fromkeys((name_of(node), *behind, *moves)))
        found.append(Layer(name_of(node), node.op_type, module_of(node), tensors, share, nodes))
    return found


def _moves_before(graph: Graph, nodes: Sequence[Any]) -> list[str]:
    """Return the operators that move values to some nodes: a quantizer may round before them, not behind."""
    pending, found = [name for node in nodes for name in node.input], {}
    while pending:
        node = graph.producer(pending.pop())
        if node is not None and node.op_type in _MOVES and node.name not in found:
            found[node.name] = node
            pending += node.input
    return list(found)


def compared_tensors(layers: Sequence[Layer], graph: Graph, has_pairs: bool) -> dict[str, tuple[str, str]]:
    """Return for each layer what the next one reads: a tensor of the float graph, and of the graph of an engine (`next_reads`).

    Tapping the dequantized tensor leaves the operators before it fused.

    Args:
        layers: of the float graph.
        graph: the Q/DQ graph.
        has_pairs: whether the engine was compiled from this very graph, so that it has the names of its Q/DQ pairs.
    """
    found = {layer.name: next_reads(layer.tensors, graph, has_pairs) for layer in layers}
    return {name: tensors for name, tensors in found.items() if tensors is not None}


def cut(model: Any, tensors: Collection[str]) -> Any:
    """Return a copy of a graph (`onnx.ModelProto`) in which the readers of some tensors read them as inputs of the graph.

    Its outputs are these tensors as their own operators compute them, `NAME@own`, so each part between two tensors is computed from
    what is handed in, and an error in one part is in no other.
    """
    import onnx
    from onnx import helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    shapes = Graph(model).shapes
    for node in made.graph.node:
        for place, name in enumerate(node.output):
            if name in tensors:
                node.output[place] = name + OWN
    known = [value for value in made.graph.value_info if value.name not in tensors]
    del made.graph.value_info[:]
    made.graph.value_info.extend(known)
    del made.graph.output[:]
    for name in tensors:
        made.graph.input.append(helper.make_tensor_value_info(name, _FLOAT, shapes.get(name)))
        made.graph.output.append(onnx.ValueInfoProto(name=name + OWN))
    return made


def _values(graph: Graph) -> list[Any]:
    whole = inferred(graph.model)
    return [*whole.value_info, *whole.output]


def step_share(values: np.ndarray, scale: np.ndarray) -> float:
    """Return the noise share of rounding values once to steps of `scale`, (a step)^2 / 12 each."""
    power = float(np.mean(values.astype(np.float64) ** 2))
    return float(np.mean(scale.astype(np.float64) ** 2)) / 12 / power if power else 0.0

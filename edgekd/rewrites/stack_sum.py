"""Tensors that are stacked on a new axis and summed over it (torch.stack(...).sum) as a chain of Adds, in four dimensions.

Rewrites Unsqueeze of every input, Concat, and ReduceSum or ReduceMean over that axis. RKNN-Toolkit2 2.5.0 flattens the stack to
an axis of up to 65536 values, logs "bit width of field value exceeds the limit", and reports success (FPN of
segmentation-models-pytorch, 256x256; seen by rewriting it, 2026-11-23).

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, List, Optional

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit
from edgekd.rewrites.graph import Graph, attributes, axes_of, name_of

ERROR = ROUNDING


@dataclass(frozen=True)
class Stack:
    """A sum over a stack: its nodes in graph order, the sum last, and the stacked tensors."""

    nodes: List[Any]
    tensors: List[str]


def rewrite(model: Any) -> List[str]:
    """Replace the sums; see `base.py`."""
    edit, replaced = Edit(model), []
    for stack in stacks(edit):
        edit.replace(stack.nodes, _adds(edit, stack))
        replaced.append(name_of(stack.nodes[-1]))
    edit.apply()
    return replaced


def stacks(graph: Graph) -> Iterator[Stack]:
    """Yield the sums over stacks of a graph."""
    for node in graph.nodes:
        stack = _stack(graph, node) if node.op_type in ("ReduceSum", "ReduceMean") else None
        if stack is not None:
            yield stack


def _stack(graph: Graph, node: Any) -> Optional[Stack]:
    """Return the stack that a node sums; None when it sums something else."""
    concat = graph.producer(node.input[0])
    if concat is None or concat.op_type != "Concat" or graph.only_reader(concat.output[0]) is None:
        return None
    shape, given = graph.shape(concat.output[0]), attributes(node)
    parts = [graph.producer(name) for name in concat.input]
    if shape is None or any(part is None or part.op_type != "Unsqueeze" for part in parts) or given.get("keepdims", 1):
        return None
    axis = attributes(concat)["axis"] % len(shape)
    is_one_axis = _axes(graph, node, len(shape)) == [axis] and shape[axis] == len(parts)
    if not is_one_axis or any(_axes(graph, part, len(shape)) != [axis] for part in parts):
        return None
    if any(graph.only_reader(name) is None for name in concat.input):
        return None
    return Stack([*parts, concat, node], [part.input[0] for part in parts])


def _axes(graph: Graph, node: Any, rank: int) -> List[int]:
    return sorted(axis % rank for axis in axes_of(graph, node) or ())


def _adds(edit: Edit, stack: Stack) -> List[Any]:
    node, tensors = stack.nodes[-1], stack.tensors
    output, nodes, total = node.output[0], [], tensors[0]
    is_mean = node.op_type == "ReduceMean"
    for i, tensor in enumerate(tensors[1:], 1):
        is_last = i == len(tensors) - 1 and not is_mean
        name = output if is_last else f"{output}/sum{i}"
        nodes.append(edit.node("Add", [total, tensor], name, {}))
        total = name
    if is_mean or not nodes:
        share = edit.add_constant(f"{output}/share", np.array(1 / len(tensors) if is_mean else 1, np.float32))
        nodes.append(edit.node("Mul", [total, share], output, {}))
    return nodes

"""Tensors that are stacked on a new axis and summed over it (torch.stack(...).sum) as a chain of Adds, in four dimensions.

Takes Unsqueeze of every input, Concat, and ReduceSum or ReduceMean over that axis. RKNN-Toolkit2 2.5.0 flattens the stack to
an axis of up to 65536 values, logs "bit width of field value exceeds the limit", and reports success (FPN of
segmentation-models-pytorch, 256x256; found by rewriting it, 2026-11-23).

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit

ERROR = ROUNDING
Stack = Tuple[List[Any], List[str]]


def rewrite(model: Any) -> List[str]:
    """Replace the sums; see `base.py`."""
    edit, found = Edit(model), []
    for node in edit.nodes:
        stack = _stack(edit, node) if node.op_type in ("ReduceSum", "ReduceMean") else None
        if stack is not None:
            nodes, tensors = stack
            edit.replace(nodes, _adds(edit, node, tensors))
            found.append(str(node.name or node.output[0]))
    edit.apply()
    return found


def _stack(edit: Edit, node: Any) -> Optional[Stack]:
    """Return the nodes of a stack that a node sums up, the sum last, and the tensors that are stacked."""
    concat = edit.maker(node.input[0])
    if concat is None or concat.op_type != "Concat" or edit.only_reader(concat.output[0]) is None:
        return None
    shape, given = edit.shape(concat.output[0]), edit.attributes(node)
    parts = [edit.maker(name) for name in concat.input]
    if shape is None or any(part is None or part.op_type != "Unsqueeze" for part in parts) or given.get("keepdims", 1):
        return None
    axis = edit.attributes(concat)["axis"] % len(shape)
    is_one_axis = _axes(edit, node, len(shape)) == [axis] and shape[axis] == len(parts)
    if not is_one_axis or any(_axes(edit, part, len(shape)) != [axis] for part in parts):
        return None
    if any(edit.only_reader(name) is None for name in concat.input):
        return None
    return [*parts, concat, node], [part.input[0] for part in parts]


def _axes(edit: Edit, node: Any, rank: int) -> List[int]:
    axes = edit.attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = edit.constant(node.input[1])
    return [] if axes is None else sorted(int(axis) % rank for axis in axes)


def _adds(edit: Edit, node: Any, tensors: List[str]) -> List[Any]:
    output, nodes, total = node.output[0], [], tensors[0]
    is_mean = node.op_type == "ReduceMean"
    for place, tensor in enumerate(tensors[1:], 1):
        is_last = place == len(tensors) - 1 and not is_mean
        name = output if is_last else f"{output}/sum{place}"
        nodes.append(edit.node("Add", [total, tensor], name, {}))
        total = name
    if is_mean or not nodes:
        share = edit.add_constant(f"{output}/share", np.array(1 / len(tensors) if is_mean else 1, np.float32))
        nodes.append(edit.node("Mul", [total, share], output, {}))
    return nodes

"""Max pools that RKNN-Toolkit2 misreads, with their padding as a separate node. The target rknn does this rewrite itself.

RKNN-Toolkit2 2.5.0 reads a MaxPool whose kernel is higher and wider than its input as the maximum of the whole input. It does
so even where the padding is so wide that windows do not cover the input, and it merges chains of pools first. On the SPPF
block of a small network the fp16 simulator was off by 1 % RMS, at every `optimization_level`, and no layer of the toolkit's
own accuracy analysis showed it. Seen by comparing with ONNX Runtime, 2026-11-23. The toolkit computes a separate padding node
correctly, unless it pads with 0, which it merges into the pool again.

The padding value is therefore slightly negative. That changes no maximum of non-negative values (after a ReLU, ReLU6 or
Sigmoid), and hardly the range of int8. Pools of other values stay as they are. Bit-equal.
Delete this when a new version reads such pools correctly (tests/unit/targets/test_rknn_target.py shows it).

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from edgekd.rewrites.base import Edit
from edgekd.rewrites.graph import Graph, attributes

ERROR = 0.0
PADDING = -(2.0**-13)  # exact in float16
Size = Tuple[int, int]
Pads = Tuple[int, int, int, int]
_NOT_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid")


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, replaced = Edit(model), []
    for node in misread(edit):
        if _is_not_negative(edit, node.input[0]):
            replaced.append(edit.replace([node], _padded(edit, node)))
    edit.apply()
    return replaced


def misread(graph: Graph) -> Iterator[Any]:
    """Yield the MaxPool nodes that the toolkit reads as global ones, alone or merged with the pools that feed only them."""
    for node in graph.nodes:
        if node.op_type != "MaxPool" or len(attributes(node)["kernel_shape"]) != 2:
            continue
        kernel, pads, strides = _pool(attributes(node))
        before = graph.producer(node.input[0])
        while before is not None and before.op_type == "MaxPool" and graph.only_reader(before.output[0]) is not None:
            inner, around, _ = _pool(attributes(before))
            kernel = (kernel[0] + inner[0] - 1, kernel[1] + inner[1] - 1)
            pads = tuple(a + b for a, b in zip(pads, around))  # type: ignore[assignment]  # noqa: B905
            before = graph.producer(before.input[0])
        size = graph.shape(node.input[0])
        if size is not None and len(size) == 4 and is_misread((size[2], size[3]), kernel, pads, strides):
            yield node


def is_misread(size: Size, kernel: Size, pads: Pads, strides: Size) -> bool:
    """Whether the toolkit reads a MaxPool as a global one although some of its windows do not cover the input.

    Args:
        size: height and width of the input.
        kernel: height and width.
        pads: top, left, bottom, right.
        strides: down, across.
    """
    if kernel[0] <= size[0] or kernel[1] <= size[1]:
        return False
    for axis in (0, 1):
        first_end = kernel[axis] - pads[axis]
        steps = (size[axis] + pads[axis] + pads[axis + 2] - kernel[axis]) // strides[axis]
        last_start = steps * strides[axis] - pads[axis]
        if first_end < size[axis] or last_start > 0:
            return True
    return False


def _is_not_negative(graph: Graph, tensor: str) -> bool:
    """Whether no value of a tensor is negative, judged by the node that computes it, or its input if that is a MaxPool."""
    node = graph.producer(tensor)
    while node is not None and node.op_type == "MaxPool":
        node = graph.producer(node.input[0])
    if node is None:
        return False
    if node.op_type == "Clip" and any(node.input[1:2]):
        bounds = [graph.constant(name) for name in node.input[1:] if name]
        return all(
            one is not None and one.min() >= 0 for one in bounds
        )  # where the upper bound is below the lower one, it wins
    return node.op_type in _NOT_NEGATIVE


def _padded(edit: Edit, node: Any) -> List[Any]:
    """Return a Pad node with a MaxPool's padding, and the pool without padding."""
    given = attributes(node)
    _, (top, left, bottom, right), _ = _pool(given)
    name = f"{node.output[0]}/padded"
    amounts = edit.add_constant(f"{name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    value = edit.add_constant(f"{name}/value", np.array(PADDING, np.float32))
    return [
        edit.node("Pad", [node.input[0], amounts, value], name, {"mode": "constant"}),
        edit.node("MaxPool", [name], node.output[0], {**given, "pads": (0,) * 4}),
    ]


def _pool(given: Dict[str, Any]) -> Tuple[Size, Pads, Size]:
    """Return kernel, pads and strides of a pool."""
    return given["kernel_shape"], given.get("pads", (0,) * 4), given.get("strides", (1, 1))

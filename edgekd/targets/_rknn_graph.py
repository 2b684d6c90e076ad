"""What RKNN-Toolkit2 computes wrongly without a word, found in an ONNX graph before it is built, and rewritten exactly.

RKNN-Toolkit2 2.5.0 takes a MaxPool whose kernel is higher and wider than its input for the maximum of the whole input, also
where the padding is so wide that windows do not cover it; it merges chains of pools first. On the SPPF block of a small
network the fp16 simulator was off by 1 % RMS, at every `optimization_level`, and no layer of the toolkit's own accuracy
analysis showed it. Found by comparing with ONNX Runtime, 2026-11-23. A padding that is a node of its own is computed rightly,
unless it pads with 0, which the toolkit takes into the pool again.
Delete this when a new version does without (tests/unit/targets/test_rknn_target.py shows it).

Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from edgekd.errors import TargetError

PADDING = -(2.0**-13)  # exact in float16
Size = Tuple[int, int]
Pads = Tuple[int, int, int, int]


def with_explicit_pads(model: Path, out: Path) -> List[str]:
    """Write the model with a Pad node before each MaxPool that the toolkit would misread; return the pools' names.

    The padding is slightly negative, which changes no maximum of values that are not, nor, to speak of, the range of int8.

    Raises:
        TargetError: a pool of values that may be negative.
    """
    import onnx

    net = onnx.load(str(model))
    graph = Graph(onnx.shape_inference.infer_shapes(net).graph)
    nodes, found = [], []
    for node in net.graph.node:
        if node.op_type == "MaxPool" and graph.is_misread(node):
            if not graph.is_not_negative(node.input[0]):
                height, width = graph.sizes[node.input[0]]
                raise TargetError(
                    f"{model}: {node.name}: RKNN-Toolkit2 takes a MaxPool that is larger than its input ({height}x{width}) for "
                    "the maximum of the whole input; use a larger input or a smaller kernel, or a ReLU before it"
                )
            nodes.append(_pad(node, net.graph, onnx))
            found.append(node.name)
        nodes.append(node)
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    onnx.save(net, str(out))
    return found


class Graph:
    """What has to be known of an ONNX graph: who makes a tensor, who reads it, and its height and width.

    Args:
        graph: after shape inference.
    """

    def __init__(self, graph: Any) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._readers.update(value.name for value in graph.output)
        self.sizes: Dict[str, Size] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            if len(dims) == 4:
                self.sizes[value.name] = (dims[2], dims[3])

    def is_misread(self, node: Any) -> bool:
        """Return whether the toolkit takes a MaxPool, or it with the pools that only feed it, for a global one."""
        kernel, pads, strides = _pool(node)
        before = self._makers.get(node.input[0])
        while before is not None and before.op_type == "MaxPool" and self._readers[before.output[0]] == 1:
            inner, around, _ = _pool(before)
            kernel = (kernel[0] + inner[0] - 1, kernel[1] + inner[1] - 1)
            pads = tuple(a + b for a, b in zip(pads, around))  # type: ignore[assignment]  # noqa: B905
            before = self._makers.get(before.input[0])
        size = self.sizes.get(node.input[0])
        return size is not None and is_misread(size, kernel, pads, strides)

    def is_not_negative(self, tensor: str) -> bool:
        """Return whether the maker of a tensor, or of what it pools, leaves no negative values."""
        node = self._makers.get(tensor)
        while node is not None and node.op_type == "MaxPool":
            node = self._makers.get(node.input[0])
        return node is not None and node.op_type in ("Relu", "Sigmoid", "HardSigmoid")


def is_misread(size: Size, kernel: Size, pads: Pads, strides: Size) -> bool:
    """Return whether the toolkit takes a MaxPool for a global one and it is none: a window leaves something out.

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


def _pad(node: Any, graph: Any, onnx: Any) -> Any:
    """Return a Pad node that does a MaxPool's padding, and take it from the pool."""
    _, (top, left, bottom, right), _ = _pool(node)
    name = f"{node.output[0]}_padded"
    amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    value = np.array(PADDING, np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(amounts, f"{name}_pads"))
    graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}_value"))
    inputs = [node.input[0], f"{name}_pads", f"{name}_value"]
    pad = onnx.helper.make_node("Pad", inputs, [name], name=f"{node.name}_pad", mode="constant")
    node.input[0] = name
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0] * 4
    return pad


def _pool(node: Any) -> Tuple[Size, Pads, Size]:
    """Return kernel, pads and strides of a pool."""
    given = {a.name: tuple(a.ints) for a in node.attribute if a.ints}
    return given["kernel_shape"], given.get("pads", (0,) * 4), given.get("strides", (1, 1))

"""AveragePool with `ceil_mode` and `count_include_pad` as a pool without `ceil_mode` and a factor for each border position.

The last window of a side may reach beyond the padding. ONNX and torch divide such a window by the values that it has, padding
included, and not by its whole size. OpenVINO 2026.4 divides by another number. The rewrite pads with zeros as far as the windows
reach, averages whole windows, and multiplies by window size / number of values.

Source: ONNX operator specification, AveragePool-19; torch.nn.AvgPool2d.
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit
from edgekd.rewrites.graph import Graph, attributes

ERROR = ROUNDING
Side = Tuple[int, np.ndarray]  # zeros behind the input, values of each window


def rewrite(model: Any) -> List[str]:
    """Replace the pools; see `base.py`."""
    edit, replaced = Edit(model), []
    for node, sides in overhanging(edit):
        replaced.append(edit.replace([node], _pool(edit, node, sides)))
    edit.apply()
    return replaced


def overhanging(graph: Graph) -> Iterator[Tuple[Any, Tuple[Side, Side]]]:
    """Yield the pools with windows that reach beyond the padding, and both of their sides."""
    for node in graph.nodes:
        given = attributes(node)
        is_pool = node.op_type == "AveragePool" and given.get("ceil_mode", 0) and given.get("count_include_pad", 0)
        if not is_pool or given.get("auto_pad", "NOTSET") != "NOTSET" or set(given.get("dilations", (1,))) != {1}:
            continue
        before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
        if before is None or after is None or len(before) != 4:
            continue
        rows, columns = (_side(given, axis, before[2 + axis], after[2 + axis]) for axis in (0, 1))
        if any(int(counts.min()) < given["kernel_shape"][axis] for axis, (_, counts) in enumerate((rows, columns))):
            yield node, (rows, columns)


def _side(given: Any, axis: int, size: int, windows: int) -> Side:
    window, stride = given["kernel_shape"][axis], given.get("strides", (1, 1))[axis]
    pads = given.get("pads", (0, 0, 0, 0))
    begin, end = pads[axis], pads[2 + axis]
    starts = np.arange(windows) * stride - begin
    counts = np.minimum(starts + window, size + end) - starts
    return max(int(starts[-1]) + window - size, end), counts


def _pool(edit: Edit, node: Any, sides: Tuple[Side, Side]) -> List[Any]:
    given, output = attributes(node), node.output[0]
    window, begin = given["kernel_shape"], given.get("pads", (0, 0, 0, 0))[:2]
    pads = np.array([0, 0, *begin, 0, 0, sides[0][0], sides[1][0]], np.int64)
    factors = [size / counts for size, (_, counts) in zip(window, sides)]  # noqa: B905
    factor = np.outer(factors[0], factors[1])[None, None].astype(np.float32)
    wide, pooled = f"{output}/padded", f"{output}/pooled"
    strides = given.get("strides", (1, 1))
    return [
        edit.node("Pad", [node.input[0], edit.add_constant(f"{output}/pads", pads)], wide, {}),
        edit.node("AveragePool", [wide], pooled, {"kernel_shape": window, "strides": strides}),
        edit.node("Mul", [pooled, edit.add_constant(f"{output}/factor", factor)], output, {}),
    ]

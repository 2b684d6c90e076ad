"""Resize with `antialias` as two products with constant matrices; without effect, as a Resize without it.

Antialiasing widens the filter where a side shrinks: every output row is a weighted mean of input rows, and every output column
of input columns. So the result is rows @ map @ columns. OpenVINO 2026.4 leaves antialiasing out. Where no side shrinks it
changes nothing, and the rewrite only removes the attribute.

The matrices are what ONNX's reference gives for one map per row and column.

Source: ONNX operator specification, Resize-18.
Portable: standard library + numpy, Python 3.8; onnx inside.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from edgekd.rewrites.base import ROUNDING, Edit
from edgekd.rewrites.graph import Graph, attributes

ERROR = ROUNDING


def rewrite(model: Any) -> List[str]:
    """Replace the Resize nodes; see `base.py`."""
    edit, replaced = Edit(model), []
    for node, (before, after) in antialiased(edit):
        given = {name: value for name, value in attributes(node).items() if name != "antialias"}
        if _shrinks(before, after):
            matrices = [_matrix(edit, node, before[axis], after[axis]) for axis in (2, 3)]
            new = _products(edit, node, matrices[0], matrices[1])
        else:
            new = [edit.node("Resize", node.input, node.output[0], given)]
        replaced.append(edit.replace([node], new))
    edit.apply()
    return replaced


def shrinking(graph: Graph) -> Iterator[Any]:
    """Yield the Resize nodes whose antialiasing has an effect."""
    for node, (before, after) in antialiased(graph):
        if _shrinks(before, after):
            yield node


def antialiased(graph: Graph) -> Iterator[Tuple[Any, Tuple[Any, Any]]]:
    """Yield the Resize nodes of (B, C, H, W) with `antialias`, and the shapes before and after them."""
    for node in graph.nodes:
        if node.op_type == "Resize" and attributes(node).get("antialias", 0):
            before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
            if (
                before is not None
                and after is not None
                and len(before) == 4
                and before[:2] == after[:2]
                and _is_plain(node)
            ):
                yield node, (before, after)


def _is_plain(node: Any) -> bool:
    given = attributes(node)
    return (
        given.get("mode", "nearest") in ("linear", "cubic")
        and given.get("coordinate_transformation_mode", "half_pixel")
        in ("half_pixel", "pytorch_half_pixel", "align_corners")
        and given.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _shrinks(before: Any, after: Any) -> bool:
    return bool(after[2] < before[2] or after[3] < before[3])


def _matrix(edit: Edit, node: Any, size: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, size), float32, whose product with a column is the node's result for it."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    given: Dict[str, Any] = {name: value for name, value in attributes(node).items() if name != "axes"}
    shape = (size, 1, size, 1)  # one unit vector per row of the batch
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **given)],
        "column",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.array([size, 1, wanted, 1], np.int64), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=list(edit.model.opset_import))
    outputs: Any = ReferenceEvaluator(model).run(None, {"x": np.eye(size, dtype=np.float32).reshape(shape)})
    return np.ascontiguousarray(np.asarray(outputs[0], np.float32)[:, 0, :, 0].T)


def _products(edit: Edit, node: Any, rows: np.ndarray, columns: np.ndarray) -> List[Any]:
    output = node.output[0]
    right = edit.add_constant(f"{output}/columns", np.ascontiguousarray(columns.T))  # (W, across)
    left = edit.add_constant(f"{output}/rows", rows)  # (down, H)
    across = f"{output}/across"
    return [
        edit.node("MatMul", [node.input[0], right], across, {}),  # (B, C, H, across)
        edit.node("MatMul", [left, across], output, {}),  # (B, C, down, across)
    ]

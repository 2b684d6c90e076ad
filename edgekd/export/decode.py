"""Decoding and suppression as ONNX nodes behind a detector's raw heads; `board/detection.py` is the same in numpy.

    boxes   every point's box, scores and coefficients, all levels in one tensor each
    nms     the detections after ONNX's NonMaxSuppression, in tensors of fixed size

The nodes are named `decode/...`; quantizers leave these in float (`quantize/ptq.py`).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from edgekd.board.detection import DECODE, Selection
from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.errors import UserError

_KEPT = ("prototypes",)  # the head that leaves the graph as it is


def decoded_outputs(trained: ModelSpec, how: str) -> tuple[TensorSpec, ...]:
    """Return the outputs of a detector with raw heads after `append(..., how)`.

    Raises:
        UserError: the network has no boxes.
    """
    if trained.task == "semantic":
        raise UserError(f"export.detections: a {trained.task} network has no boxes; leave it out")
    scores, coefficients = trained.all_outputs("scores"), trained.all_outputs("coefficients")
    classes, points = scores[0].shape[1], sum(tensor.shape[2] * tensor.shape[3] for tensor in scores)
    mixes = coefficients[0].shape[1] if coefficients else 0
    if how == "boxes":
        shapes: dict[str, tuple[int, ...]] = {
            "boxes": (1, 4, points),
            "scores": (1, classes, points),
            "coefficients": (1, mixes, points),
        }
    else:
        chosen = Selection()
        # Detections in a letterbox's bars are dropped later, when the image's size is known: keep room for them.
        most = min(chosen.candidates if trained.preprocess.resize == "letterbox" else chosen.most, classes * points)
        shapes = {"boxes": (1, most, 4), "scores": (1, most), "labels": (1, most), "coefficients": (1, most, mixes)}
    kind = "decoded" if how == "boxes" else "found"
    tensors = [
        TensorSpec(f"{kind}_{part}", "int32" if part == "labels" else "float32", shape, f"{kind}_{part}")
        for part, shape in shapes.items()
        if part != "coefficients" or coefficients
    ]
    return (*tensors, *(tensor for tensor in trained.outputs if tensor.role in _KEPT))


def append(model: onnx.ModelProto, spec: ModelSpec, how: str) -> None:
    """Put the decoding behind a graph whose outputs are raw heads; it then has the outputs of `spec`.

    Suppression is that of `Selection()`, on the network's input; the runtime decides between equal scores.
    """
    levels = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    tail = _Tail([name for name in levels if name not in _KEPT], [tensor.name for tensor in spec.outputs])
    _decode(tail, levels, spec.preprocess.size[0])
    if how == "nms":
        _suppress(tail, spec)
    model.graph.node.extend(tail.nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tail.constants.items())
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(t.name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.shape)
        for t in spec.outputs
    )


class _Tail:
    """Nodes written as text, `output = Operator <attributes> (inputs)`; all tensors but `known` ones are named `decode/...`."""

    def __init__(self, heads: list[str], outputs: list[str]) -> None:
        self.known = {*heads, *outputs}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, lines: str, **constants: Any) -> None:
        """Add one node per line; constants are tensors that the lines read."""
        self.constants |= {self._name(name): np.asarray(value) for name, value in constants.items()}
        for line in filter(None, map(str.strip, lines.splitlines())):
            node = parser.parse_node(line)
            node.name = f"{DECODE}{node.output[0]}"
            for side in (node.input, node.output):
                side[:] = [self._name(name) for name in side]
            self.nodes.append(node)

    def _name(self, name: str) -> str:
        return name if name in self.known else f"{DECODE}{name}"


def _decode(tail: _Tail, levels: dict[str, list[int]], height: int) -> None:
    """Add `decoded_scores`, `decoded_boxes` and, where there are any, `decoded_coefficients`."""
    roles = {role: [name for name in levels if re.fullmatch(rf"{role}_\d+", name)] for role in _ROLES}
    sizes = [(levels[name][2], levels[name][3]) for name in roles["scores"]]
    bins = levels[roles["boxes"][0]][1] // 4
    for role, (rows, axis, output) in _ROLES.items():
        for name in roles[role]:
            tail.add(f"flat_{name} = Reshape ({name}, shape_{role})")
        if roles[role]:
            shape = np.array([bins if side is None else side for side in rows], np.int64)
            flat = ", ".join(f"flat_{name}" for name in roles[role])
            tail.add(f"{output} = Concat <axis = {axis}> ({flat})", **{f"shape_{role}": shape})
    tail.add(
        """
        decoded_scores = Sigmoid (logits)
        share = Softmax <axis = 2> (sides)
        weighted = Mul (share, bins)
        expected = ReduceSum <keepdims = 0> (weighted, over_bins)
        distances = Mul (expected, strides)
        before, after = Split <axis = 1> (distances, halves)
        low = Sub (points, before)
        high = Add (points, after)
        decoded_boxes = Concat <axis = 1> (low, high)
        """,
        bins=np.arange(bins, dtype=np.float32).reshape(1, 1, -1, 1),
        over_bins=np.array([2], np.int64),
        halves=np.array([2, 2], np.int64),
        strides=np.concatenate([np.full(h * w, height / h, np.float32) for h, w in sizes]).reshape(1, 1, -1),
        points=np.concatenate([_points(size, height / size[0]) for size in sizes], axis=1)[None],
    )


# Shape of a level's head when its cells are in a row (None: the bins), the axis of the cells, and the name of all levels.
_ROLES: dict[str, tuple[list[int | None], int, str]] = {
    "scores": ([1, 0, -1], 2, "logits"),
    "boxes": ([1, 4, None, -1], 3, "sides"),
    "coefficients": ([1, 0, -1], 2, "decoded_coefficients"),
}


def _points(size: tuple[int, int], stride: float) -> np.ndarray:
    """Return (2, h * w) float32: x and y of the cells' centres on the input."""
    rows, columns = np.indices(size).reshape(2, -1)
    return ((np.stack([columns, rows]) + 0.5) * stride).astype(np.float32)


def _suppress(tail: _Tail, spec: ModelSpec) -> None:
    """Add `found_boxes`, `found_scores`, `found_labels` and, where there are any, `found_coefficients`.

    The best candidates go into NonMaxSuppression, each with a score in its own class only. What it keeps is a list of
    unknown length, which is scattered over the candidates again: no other tensor has an unknown size.
    """
    chosen = Selection()
    shapes = {tensor.role: tensor.shape for tensor in spec.outputs}
    classes, (_, most) = len(spec.classes), shapes["found_scores"]
    points = tail.constants[f"{DECODE}points"].shape[2]
    count = min(chosen.candidates, classes * points)
    tail.add(
        """
        ranking = Reshape (decoded_scores, in_a_row)
        best, places = TopK (ranking, count)
        kinds = Div (places, of_one_class)
        cells = Mod (places, of_one_class)
        points_last = Transpose <perm = [0, 2, 1]> (decoded_boxes)
        near = Gather <axis = 1> (points_last, cells)
        is_of_class = Equal (kinds, classes)
        own_score = Where (is_of_class, best, nothing)
        scores_by_class = Unsqueeze (own_score, first)
        selected = NonMaxSuppression (near, scores_by_class, most, iou, min_score)
        kept = Slice (selected, third, fourth, last)
        kept_scores = GatherND (best, kept)
        left = ScatterND (nobody, kept, kept_scores)
        ordered, order = TopK (left, most)
        order_cells = Gather (cells, order)
        order_kinds = Gather (kinds, order)
        narrow_kinds = Cast <to = 6> (order_kinds)
        found_boxes = Gather <axis = 1> (near, order)
        found_scores = Unsqueeze (ordered, first)
        found_labels = Unsqueeze (narrow_kinds, first)
        """,
        in_a_row=np.array([-1], np.int64),
        count=np.array([count], np.int64),
        of_one_class=np.array(points, np.int64),
        classes=np.arange(classes, dtype=np.int64).reshape(-1, 1),
        nothing=np.array(0, np.float32),
        first=np.array([0], np.int64),
        most=np.array([most], np.int64),
        iou=np.array([chosen.iou], np.float32),
        min_score=np.array([chosen.min_score], np.float32),
        third=np.array([2], np.int64),
        fourth=np.array([3], np.int64),
        last=np.array([1], np.int64),
        nobody=np.zeros(count, np.float32),
    )
    if "found_coefficients" in shapes:
        tail.add(
            """
            mixes_last = Transpose <perm = [0, 2, 1]> (decoded_coefficients)
            found_coefficients = Gather <axis = 1> (mixes_last, order_cells)
            """
        )

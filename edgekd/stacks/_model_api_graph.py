"""Builds the IR for Model API around an engine's IR, in OpenVINO's operators: preprocessing, the engine, decoding.

Images come as OpenCV reads them: uint8 (1, H, W, 3), BGR, of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.detection import Selection
from edgekd.board.specs import ModelSpec
from edgekd.stacks.base import Engine
from edgekd.targets.openvino.model_api import Info, describe
from edgekd.targets.openvino.runtime import import_openvino, read_model, shared_core

Node = Any  # openvino.Node or openvino.Output


@dataclass(frozen=True)
class _Place:
    """The part of the input that the image covers, as nodes of one integer each; see `board/frame.py`."""

    image: tuple[Node, Node]
    size: tuple[Node, Node]
    start: tuple[Node, Node]


def write_ir(engine: Engine, info: Info, path: Path) -> None:
    """Write the IR that Model API runs; TargetError when OpenVINO is absent or cannot read the engine's."""
    openvino = import_openvino()
    model, spec = read_model(engine.file), engine.spec
    own = {operator.get_friendly_name() for operator in model.get_ops()}
    image, place = model.inputs[0].get_node(), _whole(spec)
    if prepares(spec):
        image = _ops().parameter([1, -1, -1, 3], np.uint8, "image")
        image.output(0).set_names({"image"})
        place = _place(image, spec)
        ready = _prepared(image, spec, place)
        for reader in model.inputs[0].get_target_inputs():
            reader.replace_source_output(ready.output(0))
    ends = {tensor.name: _source(model, tensor.name) for tensor in spec.outputs}
    finish = _class_scores if spec.task == "semantic" else _objects
    results = []
    for name, node in finish(ends, spec, place).items():
        node.output(0).set_names({name})
        results.append(_ops().result(node.output(0), name=name))
    made = openvino.Model(results, [image], "edgekd")
    for number, operator in enumerate(made.get_ordered_ops()):
        if operator.get_friendly_name() not in own:  # OpenVINO counts operators in the process: other bytes each time
            operator.set_friendly_name(f"edgekd/{number}")
    describe(made, info)
    openvino.save_model(made, path, compress_to_fp16=False)


def prepares(spec: ModelSpec) -> bool:
    """Whether the graph prepares images. Model API 0.4.7 refuses that in its wrappers of masks: they read `orig_width`, which
    it sets only where it prepares images itself (instance_segmentation.py). Delete this when it does not."""
    return spec.task != "instance"


def _ops() -> Any:
    import_openvino()
    from openvino import opset13

    return opset13


def _source(model: Any, name: str) -> Node:
    """Return the tensor that feeds an output of the engine, by the output's name."""
    port = next(one for one in model.outputs if name in one.get_names())
    return port.get_node().input_value(0)


def _ints(*values: int) -> Node:
    return _ops().constant(np.array(values, np.int64))


def _place(image: Node, spec: ModelSpec) -> _Place:
    """Return where the image lies: `board/frame.py` in integers, which `min` with the input's side makes one formula."""
    ops, (full_height, full_width) = _ops(), spec.preprocess.size
    shape = ops.shape_of(image)
    height, width = (ops.gather(shape, _ints(axis), _ints(0)) for axis in (1, 2))
    if spec.preprocess.resize == "stretch":
        return replace(_whole(spec), image=(height, width))
    sizes = []
    for one, other, full, other_full in (
        (height, width, full_height, full_width),
        (width, height, full_width, full_height),
    ):
        twice = ops.multiply(_ints(2), other)
        rounded = ops.divide(ops.add(ops.multiply(_ints(2 * other_full), one), other), twice)
        sizes.append(ops.minimum(ops.maximum(rounded, _ints(1)), _ints(full)))
    starts = [
        ops.divide(ops.subtract(_ints(full), size), _ints(2))
        for full, size in zip(spec.preprocess.size, sizes, strict=True)
    ]
    return _Place((height, width), (sizes[0], sizes[1]), (starts[0], starts[1]))


def _whole(spec: ModelSpec) -> _Place:
    """Return the place of an image of the input's size."""
    size = (_ints(spec.preprocess.size[0]), _ints(spec.preprocess.size[1]))
    return _Place(size, size, (_ints(0), _ints(0)))


def _prepared(image: Node, spec: ModelSpec, place: _Place) -> Node:
    """Return the engine's input: what `board/preprocess.py` makes of an image."""
    ops, preprocess = _ops(), spec.preprocess
    pixels = ops.transpose(ops.convert(image, "f32"), _ints(0, 3, 1, 2))
    if preprocess.color_order == "RGB":
        pixels = ops.gather(pixels, _ints(2, 1, 0), _ints(1))
    # Rounded to whole pixels, as edgekd does.
    pixels = ops.floor(ops.add(_resized(pixels, place.size), ops.constant(np.float32(0.5))))
    if preprocess.resize == "letterbox":
        after = [ops.subtract(ops.subtract(_ints(full), start), size)
                 for full, start, size in zip(preprocess.size, place.start, place.size, strict=True)]  # fmt: skip
        begin, end = (ops.concat([_ints(0, 0), *side], 0) for side in (place.start, after))
        pixels = ops.pad(pixels, begin, end, "constant", ops.constant(np.float32(0)))
    pixels = ops.reshape(pixels, _ints(1, 3, *preprocess.size), False)  # a static shape for the engine
    if preprocess.dtype == "uint8":
        pixels = ops.convert(pixels, "u8")
    else:
        std = np.asarray(preprocess.std, np.float64)
        scale = (1 / (255 * std)).astype(np.float32).reshape(1, 3, 1, 1)
        offset = (-np.asarray(preprocess.mean, np.float64) / std).astype(np.float32).reshape(1, 3, 1, 1)
        pixels = ops.add(ops.multiply(pixels, ops.constant(scale)), ops.constant(offset))
    return ops.transpose(pixels, _ints(0, 2, 3, 1)) if preprocess.layout == "NHWC" else pixels


def _resized(planes: Node, size: tuple[Node, Node], mode: str = "bilinear_pillow") -> Node:
    """Return planes (1, C, h, w) at another size: Pillow's BILINEAR, as `board/filters.py`, or `nearest`, as `board/resize.py`."""
    ops, sizes = _ops(), _ops().concat(list(size), 0)
    return ops.interpolate(planes, sizes, mode, "sizes", nearest_mode="round_prefer_ceil", axes=_ints(2, 3))


def _class_scores(ends: dict[str, Node], spec: ModelSpec, place: _Place) -> dict[str, Node]:
    """Return `logits` (1, K, H, W) at the image's size, as `board/class_maps.py` makes them before it takes the largest.

    Of an engine that ends in a class map, each class is 1 where it is and 0 elsewhere.
    """
    ops, tensor = _ops(), spec.output("logits", "class_map")
    scores, mode = ends[tensor.name], "bilinear_pillow"
    if tensor.role == "class_map":
        one, none = (ops.constant(np.float32(value)) for value in (1, 0))
        kinds = ops.convert(scores, "i64")
        scores = ops.one_hot(kinds, ops.constant(np.int64(len(spec.classes))), one, none, axis=1)
        mode = "nearest"
    if tuple(tensor.shape[-2:]) != spec.preprocess.size:
        scores = _resized(scores, (_ints(spec.preprocess.size[0]), _ints(spec.preprocess.size[1])))
    if spec.preprocess.resize == "letterbox":
        stop = [ops.add(start, size) for start, size in zip(place.start, place.size, strict=True)]
        scores = ops.slice(scores, ops.concat(list(place.start), 0), ops.concat(stop, 0), _ints(1, 1), _ints(2, 3))
    return {"logits": _resized(scores, place.image, mode)}


def _objects(ends: dict[str, Node], spec: ModelSpec, place: _Place) -> dict[str, Node]:
    """Return `boxes` (1, N, 5) on the input, stretched over the whole image, with scores, `labels` (1, N), and `masks`."""
    ops = _ops()
    found = ends if spec.all_outputs("found_boxes") else _suppressed(ends, spec)
    boxes, scores, labels = (found[f"found_{part}"] for part in ("boxes", "scores", "labels"))
    # Model API stretches boxes from the input to the image; of a letterboxed one the bars go first.
    full, start, size = (
        ops.convert(ops.concat([sides[1], sides[0]] * 2, 0), "f32")
        for sides in (tuple(map(_ints, spec.preprocess.size)), place.start, place.size)
    )
    on_input = boxes
    boxes = ops.divide(ops.multiply(ops.subtract(boxes, start), full), size)
    outputs = {"boxes": ops.concat([boxes, ops.unsqueeze(scores, _ints(2))], 2), "labels": ops.convert(labels, "i64")}
    if spec.task == "instance":
        outputs["masks"] = _masks(found, on_input, spec)
    return outputs


def _suppressed(ends: dict[str, Node], spec: ModelSpec) -> dict[str, Node]:
    """Return the detections of raw heads: the nodes of `export.detections: nms`, read from an ONNX graph of their own."""
    from io import BytesIO

    import onnx
    from onnx import TensorProto, helper

    from edgekd.export.decode import append, decoded_outputs

    heads = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.shape) for one in spec.outputs]
    graph = helper.make_graph([], "decode", heads, heads)
    tail = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    decoded = replace(spec, outputs=decoded_outputs(spec, "nms"))
    append(tail, decoded, "nms")
    del tail.graph.output[3 + bool(spec.all_outputs("coefficients")) :]  # the prototypes, which no node makes
    onnx.checker.check_model(tail)
    model = shared_core().read_model(BytesIO(tail.SerializeToString()))
    for port in model.inputs:
        for reader in port.get_target_inputs():
            reader.replace_source_output(ends[port.get_any_name()])
    names: list[str] = [one.name for one in tail.graph.output]
    return {name: _source(model, name) for name in names} | {n: ends[n] for n in ends if n == "prototypes"}


def _masks(found: dict[str, Node], boxes: Node, spec: ModelSpec) -> Node:
    """Return masks (1, N, h, w) of the whole input at the prototypes' size, above 0.5 inside.

    Model API resizes them to the image before it takes 0.5, so they are logits plus 0.5, negative in the cells outside of the
    box: resized, the edge lies half-way to the next cell, as far as two pixels of the input from the box's.
    """
    ops, (_, count, height, width) = _ops(), spec.output("prototypes").shape
    objects = _objects_count(spec)
    coefficients = ops.reshape(found["found_coefficients"], _ints(objects, count), False)
    planes = ops.reshape(found["prototypes"], _ints(count, height * width), False)
    logits = ops.reshape(ops.matmul(coefficients, planes, False, False), _ints(1, objects, height, width), False)
    rows = ops.unsqueeze(_inside(boxes, 1, height, spec.preprocess.size[0]), _ints(3))
    columns = ops.unsqueeze(_inside(boxes, 0, width, spec.preprocess.size[1]), _ints(2))
    outside = ops.negative(ops.absolute(logits))
    return ops.add(ops.select(ops.logical_and(rows, columns), logits, outside), ops.constant(np.float32(0.5)))


def _inside(boxes: Node, corner: int, length: int, full: int) -> Node:
    """Return whether each cell's centre (1, N, length) lies between two corners of each box along an axis of `full` pixels."""
    ops = _ops()
    centres = ops.constant(((np.arange(length, dtype=np.float32) + 0.5) * full / length).reshape(1, 1, length))
    low, high = (ops.gather(boxes, _ints(which), _ints(2)) for which in (corner, corner + 2))
    return ops.logical_and(ops.greater(centres, low), ops.less(centres, high))


def _objects_count(spec: ModelSpec) -> int:
    """Return the number of detections that the graph gives."""
    given = spec.all_outputs("found_scores")
    points = sum(one.shape[2] * one.shape[3] for one in spec.all_outputs("scores"))
    return given[0].shape[1] if given else min(Selection().most, len(spec.classes) * points)

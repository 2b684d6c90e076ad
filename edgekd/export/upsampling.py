"""Ends a segmenter's graph before its last bilinear upsampling, which `board/class_maps.py` does instead.

The class map is the same (`board/class_maps.py`): small logits are resized to the network's input and from there to the image.
The engine is spared the upsampling, and its output is smaller by the square of the factor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from edgekd.board.specs import ModelSpec
from edgekd.rewrites.graph import Graph, attributes

_COORDINATES = ("half_pixel", "pytorch_half_pixel")  # they differ only where a side has one pixel


def cut_upsampling(model: onnx.ModelProto, spec: ModelSpec) -> ModelSpec:
    """Remove the last node when it resizes the logits bilinearly to the input's size, and return the new contract.

    Any other graph stays as it is.
    """
    tensor = spec.output("logits")
    graph = Graph(model)
    node = graph.producer(tensor.name)
    source = graph.shape(node.input[0]) if node is not None and node.op_type == "Resize" else None
    if node is None or source is None or not _is_bilinear(attributes(node)):
        return spec
    if len(source) != 4 or source[:2] != tensor.shape[:2] or min(tensor.shape[2:]) < 2:
        return spec
    if tensor.shape[2:] != spec.preprocess.size or source[2] > tensor.shape[2] or source[3] > tensor.shape[3]:
        return spec
    if graph.producer(node.input[0]) is None or graph.is_output(node.input[0]) or graph.readers(tensor.name):
        return spec
    if not _is_by_size(graph, node, source, tensor.shape) or _has_subgraphs(model):
        return spec
    _end_at(model, node.input[0], source, node)
    small = replace(tensor, shape=source)
    return replace(spec, outputs=tuple(small if one is tensor else one for one in spec.outputs))


def _is_bilinear(given: dict[str, Any]) -> bool:
    """Whether a Resize does what `board.filters.bilinear` does where an axis grows."""
    return (
        given.get("mode", "nearest") == "linear"
        and given.get("coordinate_transformation_mode", "half_pixel") in _COORDINATES
        and not given.get("exclude_outside", 0)
        and "axes" not in given
        and given.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _is_by_size(graph: Graph, node: onnx.NodeProto, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a Resize interpolates by the ratio of the sizes; by given scales it may be another one."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    scales = graph.constant(node.input[2])
    if scales is None:
        return False
    return not scales.size or np.allclose(np.array(source) * scales, target, rtol=1e-6, atol=0)


def _has_subgraphs(model: onnx.ModelProto) -> bool:
    """Whether a node has a subgraph, which may read a renamed tensor."""
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in kinds for node in model.graph.node for attribute in node.attribute)


def _end_at(model: onnx.ModelProto, source: str, shape: tuple[int, ...], last: onnx.NodeProto) -> None:
    """Give a tensor of this shape the name of the last node's output, and remove that node."""
    graph, name = model.graph, last.output[0]
    graph.node.remove(last)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name if one == source else one for one in names]
    for value in graph.output:
        if value.name == name:
            for side, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                side.dim_value = length
    kept = [value for value in graph.value_info if value.name != source]
    read = {one for node in graph.node for one in node.input}
    weights = [one for one in graph.initializer if one.name in read]
    del graph.value_info[:], graph.initializer[:]
    graph.value_info.extend(kept)
    graph.initializer.extend(weights)

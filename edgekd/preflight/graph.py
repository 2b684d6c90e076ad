"""An ONNX graph as the checks read it: shapes, constants, who makes and who reads a tensor, and which module it was."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ArtifactError, TargetError, UserError

# torch.onnx (2.5 and later) writes the path of modules down to the operation, as a Python list.
SCOPES = "pkg.torch.onnx.name_scopes"
QDQ = ("QuantizeLinear", "DequantizeLinear")


class Graph:
    """Reads an ONNX file.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: onnx is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnx
        except ImportError as exc:
            raise TargetError("onnx is not installed; pip install 'edgekd[onnxruntime]'") from exc
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as exc:  # DecodeError, OSError, ValidationError or InferenceError, depending on the damage
            raise ArtifactError(f"{path}: not a readable ONNX file: {' '.join(str(exc).split())[:300]}") from exc
        self.path = path
        self.proto: Any = model.graph
        self.nodes: list[Any] = [node for node in model.graph.node if node.op_type != "Constant"]
        self.inputs: list[Any] = [v for v in model.graph.input if v.name not in self.constants]
        self.outputs: list[Any] = list(model.graph.output)
        self.producer = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """Arrays by tensor name: initializers and Constant nodes."""
        from onnx import numpy_helper

        found = {one.name: numpy_helper.to_array(one) for one in self.proto.initializer}
        for node in self.proto.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        return found

    @cached_property
    def shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shape by tensor name; a dimension that is not static is its name, or `?`."""
        values = (*self.proto.input, *self.proto.output, *self.proto.value_info)
        found = {v.name: static_shape(v) for v in values if v.type.tensor_type.HasField("shape")}
        return found | {name: array.shape for name, array in self.constants.items()}

    @property
    def is_quantized(self) -> bool:
        """Whether it has Q/DQ nodes."""
        return any(node.op_type in QDQ for node in self.nodes)

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape when it is known and static."""
        shape = self.shapes.get(name)
        return None if shape is None or any(isinstance(n, str) for n in shape) else shape  # type: ignore[return-value]


def static_shape(value: Any) -> tuple[int | str, ...]:
    """Return the shape of a `ValueInfoProto`."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values; text is decoded."""
    from onnx import helper

    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in values.items()
    }


def module_of(node: Any) -> str:
    """Return the torch module that a node came from, e.g. `decoder.psp.blocks.2`; "" when the file does not say."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # written by somebody else
                return ""
            return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""
    return ""


def name_of(node: Any) -> str:
    """Return a node's name; where it has none, as many exporters leave it, that of its first output, which is unique."""
    return node.name or next(iter(node.output), "")


def checked_inputs(graph: Graph) -> None:
    """Raise UserError when a graph has no input, which nothing can be built from."""
    if not graph.inputs:
        raise UserError(f"{graph.path}: expected a network with an input, got a graph without one")

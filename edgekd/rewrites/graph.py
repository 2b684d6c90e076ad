"""The one reader of ONNX graphs: nodes, producers, readers, constants, shapes, names.

`read_onnx` loads a file, `read_graph` loads it without its large weights, `Graph` reads a model in memory.

Portable: standard library + numpy, Python 3.8; onnx inside functions.
"""

from __future__ import annotations

import ast
import logging
import shutil
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from edgekd.board.installation import install
from edgekd.errors import ArtifactError, TargetError, one_line

log = logging.getLogger(__name__)
# torch.onnx (2.5 and later) writes the path of modules down to the operation, as a Python list.
SCOPES = "pkg.torch.onnx.name_scopes"
QDQ = ("QuantizeLinear", "DequantizeLinear")
# Larger tensors are left on disk by `read_graph` and left out of shape inference: they are weights, not shapes or indices.
SMALL_BYTES = 1 << 20
_NOT_FOLDED = ("If", "Loop", "Scan", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
               "Bernoulli")  # fmt: skip
_NO_ANSWER = (RuntimeError, NotImplementedError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
Shape = Tuple[int, ...]


def import_onnx() -> Any:
    """Import onnx; TargetError when it is not installed."""
    try:
        import onnx
    except ImportError as exc:
        raise TargetError(f"onnx is not installed; {install('onnxruntime')}") from exc
    return onnx


def read_onnx(path: Path, has_weights: bool = True) -> Any:
    """Load and check an ONNX file: an `onnx.ModelProto`.

    Args:
        path: the file.
        has_weights: also load the weights that it keeps in other files.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: onnx is not installed.
    """
    onnx = import_onnx()
    try:
        onnx.checker.check_model(str(path))  # damaged protobuf can parse as an empty model, which the checker refuses
        return onnx.load(str(path), load_external_data=has_weights)
    except Exception as exc:  # DecodeError, OSError or ValidationError, depending on the damage
        is_outside = "should be stored in" in str(exc)
        todo = (
            "put the file with its weights beside it, under the name that it had at export"
            if is_outside
            else "export it again"
        )
        raise ArtifactError(f"{path}: not a readable ONNX file: {one_line(exc)}; {todo}") from exc


def copy_onnx(source: Path, copy: Path) -> None:
    """Copy an ONNX file; weights that it keeps in other files go into the copy.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: with its weights it is larger than one file may be, 2 GiB.
    """
    if not any(map(_is_outside, read_onnx(source, has_weights=False).graph.initializer)):
        shutil.copyfile(str(source), str(copy))
        return
    whole = read_onnx(source)
    try:
        import_onnx().save(whole, str(copy))
    except Exception as exc:  # protobuf's EncodeError or ValueError, by version
        raise TargetError(
            f"{source}: its external weights cannot be packed into one file, expected at most 2 GiB: {one_line(exc)}"
        ) from exc


def read_graph(path: Path) -> "Graph":
    """Read the graph of an ONNX file. Tensors over SMALL_BYTES that it keeps in other files stay there.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: onnx is not installed.
    """
    model = read_onnx(path, has_weights=False)
    from onnx.external_data_helper import load_external_data_for_tensor

    try:
        for tensor in model.graph.initializer:
            if _is_outside(tensor) and _size_bytes(tensor) <= SMALL_BYTES:
                load_external_data_for_tensor(tensor, str(path.parent))
        graph = Graph(model, path)
        graph.shapes  # noqa: B018 - a graph that contradicts itself is found here
    except Exception as exc:  # OSError, ValidationError or InferenceError, depending on the damage
        raise ArtifactError(f"{path}: not a readable ONNX file: {one_line(exc)}; export it again") from exc
    return graph


class Graph:
    """An ONNX model as a graph. It reads the model once: after changing the model, make a new one.

    model: the `onnx.ModelProto`.
    path: the file it came from, if any.
    nodes: in graph order, without Constant nodes.
    inputs, outputs: `onnx.ValueInfoProto` of the network; initializers are not inputs.
    """

    def __init__(self, model: Any, path: Path = Path()) -> None:
        graph = model.graph
        self.model = model
        self.path = path
        self.nodes: List[Any] = [node for node in graph.node if node.op_type != "Constant"]
        self._constants = {one.name: one for one in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t
        self.inputs: List[Any] = [value for value in graph.input if value.name not in self._constants]
        self.outputs: List[Any] = list(graph.output)
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._readers: Dict[str, List[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._readers[name].append(node)

    @cached_property
    def shapes(self) -> Dict[str, Tuple[Union[int, str], ...]]:
        """Shape by tensor name; a dimension that is not static is its name, or `?`."""
        graph = inferred(self.model)
        values = (*graph.input, *graph.output, *graph.value_info)
        found = {value.name: _dimensions(value) for value in values if value.type.tensor_type.HasField("shape")}
        return {**found, **{name: tuple(tensor.dims) for name, tensor in self._constants.items()}}

    @property
    def is_quantized(self) -> bool:
        """Whether it has Q/DQ nodes."""
        return any(node.op_type in QDQ for node in self.nodes)

    def shape(self, tensor: str) -> Optional[Shape]:
        """Return a tensor's shape, None when it is unknown or not static."""
        shape = self.shapes.get(tensor)
        return None if shape is None or any(isinstance(size, str) for size in shape) else shape  # type: ignore[return-value]

    def producer(self, tensor: str) -> Any:
        """Return the node that computes a tensor, None for an input or constant."""
        return self._producers.get(tensor)

    def value(self, tensor: str) -> np.ndarray:
        """Return the value of an initializer or Constant node, read from its file where it was left on disk."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._constants[tensor], str(self.path.parent)))

    def constant_type(self, tensor: str) -> str:
        """Return the element type of an initializer or Constant node, e.g. `int8`; "" for other tensors."""
        from onnx import TensorProto

        value = self._constants.get(tensor)
        return "" if value is None else TensorProto.DataType.Name(value.data_type).lower()

    @property
    def constants(self) -> List[str]:
        """The names of the initializers and of the outputs of Constant nodes."""
        return list(self._constants)

    def readers(self, tensor: str) -> List[Any]:
        """Return the nodes that read a tensor, a node once for each of its inputs that does."""
        return self._readers.get(tensor, [])

    def only_reader(self, tensor: str) -> Any:
        """Return the node that reads a tensor; None when there are more readers, or it is an output of the network."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def is_output(self, tensor: str) -> bool:
        """Whether a tensor is an output of the network."""
        return any(value.name == tensor for value in self.outputs)

    def constant(self, tensor: str) -> Optional[np.ndarray]:
        """Return the value of an initializer or Constant node; None for other tensors and for weights left on disk."""
        from onnx import numpy_helper

        value = self._constants.get(tensor)
        return None if value is None or _is_outside(value) else np.asarray(numpy_helper.to_array(value))


def inferred(model: Any) -> Any:
    """Infer the shapes of a model: a `GraphProto` with its values' shapes, without its large weights.

    Leaving the weights out saves two copies of them, and takes models over protobuf's limit of 2 GiB.
    """
    from onnx import ModelProto, helper, shape_inference

    graph = model.graph
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    light.graph.name = graph.name
    for name in ("node", "input", "output", "value_info"):
        getattr(light.graph, name).extend(getattr(graph, name))
    known = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if not _is_outside(tensor) and _size_bytes(tensor) <= SMALL_BYTES:
            light.graph.initializer.append(tensor)
        elif tensor.name not in known:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return shape_inference.infer_shapes(light, data_prop=True).graph


def attributes(node: Any) -> Dict[str, Any]:
    """Return a node's attributes as Python values; text is decoded, lists are tuples."""
    from onnx import helper

    return {one.name: _plain(helper.get_attribute_value(one)) for one in node.attribute}


def axes_of(graph: Graph, node: Any) -> Optional[Shape]:
    """Return the axes of a Reduce, Squeeze or Unsqueeze: its attribute, or its second input where that is constant."""
    axes = attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = graph.constant(node.input[1])
    return None if axes is None else tuple(int(axis) for axis in axes)


def opsets(model: Any) -> Dict[str, int]:
    """Return the version of each operator set that an `onnx.ModelProto` imports, by domain; ONNX's own is `ai.onnx`."""
    return {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}


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
    """Return a node's name, or its first output where it has no name, as many exporters leave it."""
    return str(node.name or next(iter(node.output), ""))


def name_nodes(model: Any) -> List[str]:
    """Give each node without a unique name a new name; return the new names.

    Toolchains find a node by its name: a setting for one unnamed node would apply to all unnamed nodes.
    """
    known = {node.name for node in model.graph.node}
    seen, given = {""}, []
    for node in model.graph.node:
        if node.name in seen:
            base = name = next(filter(None, node.output), node.op_type)
            number = 0
            while name in known:
                number += 1
                name = f"{base}_{number}"
            node.name = name
            known.add(name)
            given.append(name)
        seen.add(node.name)
    return given


def folded(graph: "Graph", most_bytes: int = SMALL_BYTES) -> Dict[str, np.ndarray]:
    """Return the constants by name, also those that nodes compute from constants alone; none over `most_bytes`."""
    from onnx.reference import ReferenceEvaluator

    values: Dict[str, np.ndarray] = {}
    for name in graph.constants:
        if int(np.prod(graph.shape(name) or (), dtype=np.int64)) <= most_bytes // 8:
            values[name] = graph.value(name)
    imports = list(graph.model.opset_import)
    for node in graph.nodes:
        shapes = [graph.shape(name) for name in node.output if name]
        is_large = any(shape is None or int(np.prod(shape, dtype=np.int64)) > most_bytes // 8 for shape in shapes)
        if is_large or node.op_type in _NOT_FOLDED or any(name and name not in values for name in node.input):
            continue
        given = {name: values[name] for name in node.input if name}
        try:
            outputs: Any = ReferenceEvaluator(_one_node(node, given, imports)).run(None, given)
        except _NO_ANSWER as exc:  # ONNX's reference lacks the operator: its output is treated as variable
            log.debug("%s is not folded: %s", name_of(node), one_line(exc))
            continue
        values.update(zip(node.output, map(np.asarray, outputs)))  # noqa: B905
    return values


def _one_node(node: Any, given: Dict[str, np.ndarray], imports: List[Any]) -> Any:
    from onnx import helper

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    return helper.make_model(helper.make_graph([node], "node", inputs, outputs), opset_imports=imports)


def _is_outside(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _size_bytes(tensor: Any) -> int:
    from onnx import helper

    return int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _dimensions(value: Any) -> Tuple[Union[int, str], ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(value) if isinstance(value, list) else value

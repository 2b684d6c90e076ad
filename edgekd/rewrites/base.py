"""What a rewrite is, and the editing that all of them share.

A rewrite is one file `rewrites/<name>.py` with

    ERROR: float                     largest difference of an output relative to its largest value; 0 is bit-equal
    rewrite(model) -> List[str]      changes an `onnx.ModelProto` in place, returns the names of the nodes it replaced

It leaves alone what it cannot rewrite exactly. Shapes have to be static. A test of equality in ONNX Runtime on random
inputs goes with each (tests/unit/targets/test_rewrites.py).

Portable: standard library + numpy, Python 3.8; onnx inside functions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

ROUNDING = 1e-5  # float32 sums in another order
Shape = Tuple[int, ...]


class Edit:
    """A graph that is being rewritten: what is known of its tensors, and nodes put in the place of others."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._onnx = onnx
        self._model = model
        self.nodes: List[Any] = list(model.graph.node)
        self._instead: Dict[str, List[Any]] = {}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.shapes = {v.name: _static(v) for v in (*inferred.input, *inferred.value_info, *inferred.output)}
        self._initializers = {one.name: one for one in model.graph.initializer}
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers = Counter(name for node in self.nodes for name in node.input)
        self._readers.update(value.name for value in model.graph.output)

    def shape(self, tensor: str) -> Optional[Shape]:
        """Return a tensor's shape when it is static."""
        if tensor in self._initializers:
            return tuple(self._initializers[tensor].dims)
        return self.shapes.get(tensor)

    def maker(self, tensor: str) -> Any:
        """Return the node that computes a tensor, None for an input or constant."""
        return self._makers.get(tensor)

    def only_reader(self, tensor: str) -> Any:
        """Return the node that reads a tensor when nothing else does, not even the graph's output."""
        readers = [node for node in self.nodes if tensor in node.input]
        return readers[0] if len(readers) == 1 and self._readers[tensor] == 1 else None

    def read_outside(self, tensors: Set[str], nodes: Sequence[Any]) -> bool:
        """Return whether other nodes than these, or the graph's outputs, read one of the tensors."""
        inside = Counter(name for node in nodes for name in node.input)
        return any(self._readers[name] > inside[name] for name in tensors)

    def evaluate(self, nodes: Sequence[Any], source: str, values: np.ndarray) -> Optional[np.ndarray]:
        """Return what nodes compute of a tensor's values, by ONNX's reference implementation.

        Args:
            nodes: the output of the last one is returned; None when they read something else that is not constant.
            source: name of the tensor.
            values: in its shape.
        """
        from onnx.reference import ReferenceEvaluator

        made = {source, *(name for node in nodes for name in node.output)}
        names = sorted({name for node in nodes for name in node.input if name} - made)
        constants = {name: value for name in names if (value := self.constant(name)) is not None}
        if len(constants) < len(names):
            return None
        info, dtype = self._onnx.helper.make_tensor_value_info, self._onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        graph = self._onnx.helper.make_graph(
            list(nodes),
            "part",
            [info(source, dtype, values.shape)],
            [info(nodes[-1].output[0], dtype, None)],
            [self._onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        part = self._onnx.helper.make_model(graph, opset_imports=list(self._model.opset_import))
        outputs: Any = ReferenceEvaluator(part).run(None, {source: values})
        return np.asarray(outputs[0])

    def constant(self, tensor: str) -> Optional[np.ndarray]:
        """Return a constant's value: an initializer or the output of a Constant node."""
        if tensor in self._initializers:
            return np.asarray(self._onnx.numpy_helper.to_array(self._initializers[tensor]))
        node = self._makers.get(tensor)
        if node is None or node.op_type != "Constant" or not node.attribute[0].HasField("t"):
            return None
        return np.asarray(self._onnx.numpy_helper.to_array(node.attribute[0].t))

    def attributes(self, node: Any) -> Dict[str, Any]:
        """Return a node's attributes; text is decoded, lists are tuples."""
        return {one.name: _value(self._onnx.helper.get_attribute_value(one)) for one in node.attribute}

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Add an initializer and return its name."""
        self._model.graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, attributes: Dict[str, Any]) -> Any:
        """Return a new node, named after its output."""
        return self._onnx.helper.make_node(kind, list(inputs), [output], name=f"{output}/{kind}", **attributes)

    def replace(self, nodes: Sequence[Any], by: Sequence[Any]) -> str:
        """Put new nodes in the place of the last of some; they belong to the same torch module. Return the first's name."""
        for new in by:
            new.metadata_props.extend(nodes[0].metadata_props)
        for old in nodes:
            self._instead[old.output[0]] = []
        self._instead[nodes[-1].output[0]] = list(by)
        return str(nodes[0].name or nodes[0].output[0])

    def apply(self) -> None:
        """Write the replacements into the model, infer its shapes anew, and drop what nothing reads any more."""
        if not self._instead:
            return
        graph = self._model.graph
        kept = [new for old in self.nodes for new in self._instead.get(old.output[0], [old])]
        live = {value.name for value in graph.output}
        for node in reversed(kept):
            if not live.isdisjoint(node.output):
                live.update(node.input)
        weights = [one for one in graph.initializer if one.name in live]
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(node for node in kept if not live.isdisjoint(node.output))
        graph.initializer.extend(weights)
        inferred = self._onnx.shape_inference.infer_shapes(self._model, data_prop=True)
        graph.value_info.extend(inferred.graph.value_info)


def _static(value: Any) -> Optional[Shape]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value

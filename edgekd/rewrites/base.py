"""The rewrite protocol, and the graph editing that all rewrites share.

A rewrite is one file `rewrites/<name>.py` with

    ERROR: float                     largest difference of an output relative to its largest value; 0 is bit-equal
    rewrite(model) -> List[str]      changes an `onnx.ModelProto` in place, returns the names of the nodes it replaced

It leaves nodes that it cannot rewrite exactly. Shapes have to be static. Each rewrite has a test that compares the outputs in
ONNX Runtime on random inputs (tests/unit/rewrites/test_rewrites.py).

Portable: standard library + numpy, Python 3.8; onnx inside functions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Set

import numpy as np

from edgekd.rewrites.graph import Graph, inferred, name_of

ROUNDING = 1e-5  # float32 sums in another order


class Edit(Graph):
    """A graph that is being rewritten: `replace` collects replacements, `apply` writes them into the model."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._replacements: Dict[str, List[Any]] = {}

    def is_read_by_others(self, tensors: Set[str], nodes: Sequence[Any]) -> bool:
        """Whether other nodes than these read one of the tensors, or it is an output of the network."""
        by_these = Counter(name for node in nodes for name in node.input)
        return any(len(self.readers(name)) > by_these[name] or self.is_output(name) for name in tensors)

    def evaluate(self, nodes: Sequence[Any], source: str, values: np.ndarray) -> Optional[np.ndarray]:
        """Compute nodes by ONNX's reference implementation; None when they read another tensor that is not constant.

        Args:
            nodes: in graph order; the output of the last one is returned.
            source: name of the tensor that the first one reads.
            values: the tensor's values, in its shape.
        """
        from onnx import helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        computed = {source, *(name for node in nodes for name in node.output)}
        names = sorted({name for node in nodes for name in node.input if name} - computed)
        constants = {name: value for name in names if (value := self.constant(name)) is not None}
        if len(constants) < len(names):
            return None
        dtype = helper.np_dtype_to_tensor_dtype(values.dtype)
        graph = helper.make_graph(
            list(nodes),
            "part",
            [helper.make_tensor_value_info(source, dtype, values.shape)],
            [helper.make_tensor_value_info(nodes[-1].output[0], dtype, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        part = helper.make_model(graph, opset_imports=list(self.model.opset_import))
        outputs: Any = ReferenceEvaluator(part).run(None, {source: values})
        return np.asarray(outputs[0])

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Add an initializer and return its name."""
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, attributes: Dict[str, Any]) -> Any:
        """Return a new node, named after its output."""
        from onnx import helper

        return helper.make_node(kind, list(inputs), [output], name=f"{output}/{kind}", **attributes)

    def replace(self, nodes: Sequence[Any], by: Sequence[Any]) -> str:
        """Replace nodes by new ones, which stand where the last of the old ones stood and belong to the same torch module.

        Returns:
            The name of the first of the old nodes.
        """
        for new in by:
            new.metadata_props.extend(nodes[0].metadata_props)
        for old in nodes:
            self._replacements[old.output[0]] = []
        self._replacements[nodes[-1].output[0]] = list(by)
        return name_of(nodes[0])

    def apply(self) -> None:
        """Write the replacements into the model, infer its shapes again, and drop nodes and weights that nothing reads."""
        if not self._replacements:
            return
        graph = self.model.graph
        nodes = [new for old in graph.node for new in self._replacements.get(old.output[0], [old])]
        live = {value.name for value in graph.output}
        for node in reversed(nodes):
            if not live.isdisjoint(node.output):
                live.update(node.input)
        weights = [one for one in graph.initializer if one.name in live]
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(node for node in nodes if not live.isdisjoint(node.output))
        graph.initializer.extend(weights)
        graph.value_info.extend(inferred(self.model).value_info)

"""The Q/DQ pairs of an ONNX graph: their element types, zero points, and the bits that weights use.

Portable: standard library + numpy, Python 3.8; onnx inside functions.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from edgekd.rewrites.graph import QDQ, Graph, attributes, name_of

_NARROW = ("int8", "uint8")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Two products of a weight and an activation of 8 bits fit into 16 bits up to here: 2 * 255 * 64 < 2^15 <= 2 * 255 * 65.
SEVEN_BITS = 64


class WideWeight(NamedTuple):
    """A node whose weights use more than 7 bits: its name, their largest value, and the types of weights and activations."""

    node: str
    largest: int
    weights: str
    activations: str


def element_type(graph: Graph, node: Any) -> str:
    """Return the element type of the integers of a Q or DQ node, e.g. `int8`; "" where the file does not say.

    Source: ONNX operators QuantizeLinear and DequantizeLinear, versions 10 to 25.
    """
    zero = node.input[2] if len(node.input) > 2 else ""
    if node.op_type == "QuantizeLinear":
        from onnx import TensorProto

        wanted = int(attributes(node).get("output_dtype", 0))
        named = TensorProto.DataType.Name(wanted).lower() if wanted else "uint8"  # ONNX's default
        return graph.constant_type(zero) or ("" if zero else named)
    producer = graph.producer(node.input[0])
    found = graph.constant_type(zero) or graph.constant_type(node.input[0])
    if not found and producer is not None and producer.op_type == "QuantizeLinear":
        return element_type(graph, producer)
    return found


def other_types(graph: Graph) -> Iterator[Tuple[Any, str]]:
    """Yield each Q/DQ node whose integers are neither int8 nor uint8, and their type; the int32 of a bias is none of them."""
    for node in graph.nodes:
        if node.op_type not in QDQ:
            continue
        found = element_type(graph, node)
        is_bias = found == "int32" and node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        if found and found not in _NARROW and not is_bias:
            yield node, found


def unsigned_zero_points(graph: Graph) -> Iterator[Tuple[Any, str]]:
    """Yield each Q/DQ node whose zero point is not int8 0, and its zero point in words."""
    for node in graph.nodes:
        if node.op_type not in QDQ:
            continue
        zero = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)  # ONNX's default
        if zero is None:
            yield node, "a computed value"
        elif zero.dtype != np.int8 or zero.any():
            yield node, f"{zero.dtype} {np.unique(zero)[:3].tolist()}"


def wide_weights(graph: Graph) -> Iterator[WideWeight]:
    """Yield the nodes with 8-bit weights and activations whose weights exceed `SEVEN_BITS`, in graph order."""
    pairs: Dict[str, Any] = {
        output: node for node in graph.nodes if node.op_type == "DequantizeLinear" for output in node.output
    }
    for node in graph.nodes:
        if node.op_type not in _WEIGHTED or not all(name in pairs for name in node.input[:2]):
            continue
        activations, weights = (pairs[name] for name in node.input[:2])
        integers = _integers(graph, weights)
        if integers is None or integers.size == 0:
            continue
        largest = int(np.abs(integers).max())
        if largest > SEVEN_BITS:
            yield WideWeight(name_of(node), largest, element_type(graph, weights), element_type(graph, activations))


def _integers(graph: Graph, pair: Any) -> Optional[np.ndarray]:
    """Return the integers of a constant that a DQ node reads, less the zero point; None when they are computed or not 8 bits."""
    kind, source = element_type(graph, pair), pair.input[0]
    zero = graph.constant(pair.input[2]) if len(pair.input) > 2 else np.zeros((), np.int64)
    if kind not in _NARROW or zero is None:
        return None
    if source in graph.constants:
        value = graph.value(source).astype(np.int64)
        return np.asarray(value - _on_axis(zero.astype(np.int64), pair, value.ndim)) if zero.any() else value
    quantize = graph.producer(
        source
    )  # float weights behind a pair, as they are written for compilers that look for one
    if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.input[0] not in graph.constants:
        return None
    value, scale = graph.value(quantize.input[0]), graph.constant(quantize.input[1])
    if scale is None or scale.ndim > 1:  # in blocks
        return None
    range_, shift = np.iinfo(kind), _on_axis(zero.astype(np.int64), quantize, value.ndim)
    rounded = np.rint(value / _on_axis(scale, quantize, value.ndim)) + shift
    return np.asarray(np.clip(rounded, range_.min, range_.max).astype(np.int64) - shift)


def _on_axis(values: np.ndarray, node: Any, dimensions: int) -> np.ndarray:
    """Return one value per channel in the shape that broadcasts along a Q/DQ node's axis."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * dimensions
    shape[int(attributes(node).get("axis", 1))] = values.size
    return values.reshape(shape)

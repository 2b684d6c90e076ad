"""Q/DQ pairs read from graphs made by hand: element types, zero points, and weights beyond 7 bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.rewrites.graph import Graph
from edgekd.rewrites.pairs import WideWeight, element_type, other_types, unsigned_zero_points, wide_weights

Pair = tuple[list, dict[str, np.ndarray]]


def graph(nodes: list, constants: dict[str, np.ndarray]) -> Graph:
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return Graph(helper.make_model(helper.make_graph(nodes, "g", [], [], weights)))


def convolution(integers: np.ndarray, activations: type = np.uint8) -> Graph:
    """Return a convolution of one Q/DQ pair with weights that are stored as integers, one scale per output channel."""
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "a.scale", "a.zero"], ["a.q"], name="a.q"),
        helper.make_node("DequantizeLinear", ["a.q", "a.scale", "a.zero"], ["a"], name="a.dq"),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w"], name="w.dq", axis=0),
        helper.make_node("DequantizeLinear", ["b.q", "w.scale", "b.zero"], ["b"], name="b.dq", axis=0),
        helper.make_node("Conv", ["a", "w", "b"], ["out"], name="conv"),
    ]
    out = integers.shape[0]
    constants = {
        "a.scale": np.float32(0.1), "a.zero": activations(0),
        "w.q": integers, "w.scale": np.full(out, 0.1, np.float32), "w.zero": np.zeros(out, integers.dtype),
        "b.q": np.zeros(out, np.int32), "b.zero": np.zeros(out, np.int32),
    }  # fmt: skip
    return graph(nodes, constants)


def integers(largest: int, kind: type = np.int8) -> np.ndarray:
    values = np.zeros((2, 3, 1, 1), kind)
    values[1, 2] = largest
    return values


def test_only_a_signed_zero_point_of_0_is_left_out() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", zero], [f"q{zero}"], name=f"to {zero}")
        for zero in ("zero", "three", "half", "computed")
    ]
    nodes.append(helper.make_node("DequantizeLinear", ["qzero", "scale"], ["out"], name="default"))
    found = unsigned_zero_points(graph(nodes, {"zero": np.int8(0), "three": np.int8(3), "half": np.uint8(128)}))
    assert [(node.name, text) for node, text in found] == [
        ("to three", "int8 [3]"),
        ("to half", "uint8 [128]"),
        ("to computed", "a computed value"),
        ("default", "uint8 [0]"),
    ]


@pytest.mark.parametrize(("largest", "is_wide"), [(64, False), (-64, False), (65, True), (-128, True)])
def test_weights_are_wide_where_two_products_exceed_16_bits(largest: int, is_wide: bool) -> None:
    assert (2 * 255 * abs(largest) >= 2**15) == is_wide  # the rule itself: uint8 activations reach 255
    expected = [WideWeight("conv", abs(largest), "int8", "uint8")] if is_wide else []
    assert list(wide_weights(convolution(integers(largest)))) == expected


def test_weights_behind_a_pair_of_their_own_are_rounded_and_clipped_by_channel() -> None:
    """Channel 0: 12.6 / 0.2 = 63 steps. Channel 1: 12.6 / 0.1 = 126 steps; 50 / 0.1 would be 500 and is clipped to 127."""
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "one", "zero"], ["a.q"]),
        helper.make_node("DequantizeLinear", ["a.q", "one", "zero"], ["a"]),
        helper.make_node("QuantizeLinear", ["w", "scale", "zeros"], ["w.q"], axis=0),
        helper.make_node("DequantizeLinear", ["w.q", "scale", "zeros"], ["w.dq"], axis=0),
        helper.make_node("Conv", ["a", "w.dq"], ["out"], name="conv"),
    ]
    constants = {
        "one": np.float32(1),
        "zero": np.int8(0),
        "scale": np.float32([0.2, 0.1]),
        "zeros": np.zeros(2, np.int8),
    }
    for weights, largest in (([12.6, 1.0], 63), ([12.6, 12.6], 126), ([0.0, 50.0], 127)):
        net = graph(nodes, {**constants, "w": np.float32(weights).reshape(2, 1, 1, 1)})
        expected = [WideWeight("conv", largest, "int8", "int8")] if largest > 64 else []
        assert list(wide_weights(net)) == expected


def test_unsigned_weights_count_from_their_zero_point() -> None:
    net = convolution(integers(200, np.uint8))
    assert [one.largest for one in wide_weights(net)] == [200]


def test_the_types_are_those_of_the_zero_points_and_int32_is_a_biass() -> None:
    net = convolution(integers(1))
    assert {node.name: element_type(net, node) for node in net.nodes if node.name != "conv"} == {
        "a.q": "uint8", "a.dq": "uint8", "w.dq": "int8", "b.dq": "int32",
    }  # fmt: skip
    assert list(other_types(net)) == []


def test_pairs_of_16_bits_4_bits_and_float8_are_found_also_without_a_zero_point() -> None:
    sixteen = convolution(integers(1), np.uint16)
    assert [(node.name, kind) for node, kind in other_types(sixteen)] == [("a.q", "uint16"), ("a.dq", "uint16")]
    kinds = {"int4": TensorProto.INT4, "float8e4m3fn": TensorProto.FLOAT8E4M3FN, "int16": TensorProto.INT16}
    for name, kind in kinds.items():
        nodes = [
            helper.make_node("QuantizeLinear", ["image", "scale"], ["q"], name="q", output_dtype=kind),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["out"], name="dq"),
        ]
        found = other_types(graph(nodes, {"scale": np.float32(1)}))
        assert [(node.name, said) for node, said in found] == [("q", name), ("dq", name)]

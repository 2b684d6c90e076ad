"""Bias correction: shifts worked out by hand, and the mean of the corrected quantized graph is the float graph's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.quantize.bias_correction import correct_biases
from edgekd.quantize.grids import Grid, Placement, QuantizedNode, symmetric_weights
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale, calibrate
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph
from tests.small_nets import images, prepared, segmenter


def two_layers(has_bias: bool) -> onnx.ModelProto:
    """Return y = 0.3 x (+ 1) and z = 2 y, convolutions of one channel and one pixel."""
    constants = {"w1": np.float32([[[[0.3]]]]), "b1": np.float32([1]), "w2": np.float32([[[[2.0]]]])}
    nodes = [
        helper.make_node("Conv", ["x", "w1", *(["b1"] if has_bias else [])], ["y"], name="one"),
        helper.make_node("Conv", ["y", "w2"], ["z"], name="two"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 1, 4))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def scale(value: float, kind: type = np.int8) -> Scale:
    return Scale(np.asarray(value, np.float32), np.asarray(0, kind))


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_shift_of_a_rounded_weight_goes_into_the_bias(has_bias: bool) -> None:
    """0.3 becomes 0.25 on steps of 0.25: with inputs 0, 4, 8, 12 the mean drops by 0.05 * 6. Layer two is exact then."""
    model = two_layers(has_bias)
    whole = Grid(8, True, True)
    nodes = (QuantizedNode("one", ("x",), "w1"), QuantizedNode("two", ("y",), "w2"))
    placement = Placement(nodes, {"x": whole, "y": whole}, {"w1": whole, "w2": whole})
    scales = {"x": scale(4.0), "y": scale(1 / 128), "w1": scale(0.25), "w2": scale(1.0)}
    scales["y"] = scale(0.05)
    image = {"x": np.float32([[[[0, 4, 8, 12]]]])}
    assert correct_biases(model, placement, scales, [image]) == ["one", "two"]
    values = {node.name: Graph(model).value(node.input[2]).item() for node in model.graph.node}
    assert values["one"] == pytest.approx((1 if has_bias else 0) + 0.05 * 6)
    # y is 0.25 x + 0.3 (+ 1), on steps of 0.05: no shift is left for the second layer.
    assert values["two"] == pytest.approx(0, abs=1e-5)


def test_means_of_the_corrected_graph_are_those_of_the_float_graph(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    names = ("stem", "block.a", "block.b", "head")
    coarse = symmetric_weights(3)
    placement = Placement(
        tuple(
            QuantizedNode(node.name, (node.input[0],), node.input[1]) for node in net.graph.node if node.name in names
        ),
        {node.input[0]: Grid(8, True, False) for node in net.graph.node if node.name in names},
        {f"{name}.weight": Grid(3, True, True, 0, coarse.largest) for name in names},
    )
    batches = [prepared(spec, image) for image in images(4)]
    scales = calibrate(tmp_path / "float.onnx", placement, batches)
    outputs = [f"{name}.out" for name in names]

    def means(model: onnx.ModelProto) -> np.ndarray:
        run = runner(model, outputs, tmp_path)
        rows = [np.concatenate([value.mean(axis=(0, 2, 3)) for value in run(batch)]) for batch in batches]
        return np.asarray(np.mean(rows, axis=0))

    expected, before = means(net), means(insert_qdq(net, placement, scales))
    assert correct_biases(net, placement, scales, batches) == list(names)
    after = means(insert_qdq(net, placement, scales))
    assert np.abs(before - expected).max() > 0.01
    assert np.abs(after - expected).max() < 1e-4

"""Errors of each node, with values worked out by hand, and with ONNX's reference evaluator as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekd.errors import DataError
from edgekd.quantize import errors_by_node
from edgekd.quantize.errors_by_node import OutputNoise, accumulated, answers, named, next_reads, outputs_of
from edgekd.quantize.grids import Grid, Placement, QuantizedNode, symmetric_weights
from edgekd.quantize.noise import EQUAL_DB, Noise, to_db, to_share
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.rewrites.graph import Graph
from tests.small_nets import images, prepared, segmenter

U8 = Grid(8, is_signed=False, is_symmetric=False)


def scale(step: float, zero: int = 0, dtype: type = np.uint8) -> Scale:
    return Scale(np.asarray(step, np.float32), np.asarray(zero, dtype))


def chain() -> onnx.ModelProto:
    """y = 2 (3 x), two multiplications by a matrix of one number."""
    nodes = [
        helper.make_node("MatMul", ["x", "three"], ["m"], name="a"),
        helper.make_node("MatMul", ["m", "two"], ["y"], name="b"),
    ]
    weights = [
        numpy_helper.from_array(np.full((1, 1), value, np.float32), name) for name, value in (("three", 3), ("two", 2))
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 1]) for name in ("x", "y")]
    return helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], weights), opset_imports=[helper.make_opsetid("", 18)]
    )


PLACED = Placement((QuantizedNode("a", ("x",), None), QuantizedNode("b", ("m",), None)), {"x": U8, "m": U8}, {})
SCALES = {"x": scale(1.0), "m": scale(4.0)}
X: list[dict[str, Any]] = [{"x": np.array([[1.25], [2.0]], np.float32)}]


def test_alone_and_accumulated_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    # x = 1.25, 2 rounds to 1, 2; m = 3.75, 6 rounds to 4, 8 (1.5 to even); y = 7.5, 12.
    signal = 7.5**2 + 12**2
    noise = OutputNoise(chain(), PLACED, SCALES, X, tmp_path)
    found = {name: noise.db([name]) for name in ("a", "b")}
    assert found["a"] == pytest.approx(10 * np.log10(signal / 1.5**2))  # y = 6, 12
    assert found["b"] == pytest.approx(10 * np.log10(signal / (0.5**2 + 4**2)))  # y = 8, 16
    # Both: m = 3, 6, which b reads as 4 (0.75 to 1) and 8; so b's output has the same error as b alone.
    made = insert_qdq(chain(), PLACED, SCALES)
    tensors = {"a": next_reads(["m"], Graph(made)), "b": next_reads(["y"], Graph(made))}
    assert tensors == {"a": ("m", "m_dequantized"), "b": ("y", "y")}
    both = accumulated(chain(), made, tensors, X)  # type: ignore[arg-type]  # none is missing
    assert both["a"] == pytest.approx(10 * np.log10((3.75**2 + 6**2) / (0.25**2 + 2**2)))
    assert both["b"] == pytest.approx(found["b"])
    assert next_reads(["m"], Graph(made), has_pairs=False) == ("m", "m")
    assert next_reads(["lost", "y"], Graph(made)) == ("y", "y")


def test_noise_shares_of_several_outputs_are_averaged(tmp_path: Path) -> None:
    two = chain()
    two.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [2, 1]))
    noise = OutputNoise(two, PLACED, SCALES, X, tmp_path)
    m, y = (0.75**2) / (3.75**2 + 6**2), 1.5**2 / (7.5**2 + 12**2)  # the same share: y = 2 m
    assert noise.db(["a"]) == pytest.approx(-10 * np.log10((m + y) / 2))
    b = (0.5**2 + 4**2) / (7.5**2 + 12**2)  # m itself stays exact
    assert noise.db(["b"]) == pytest.approx(-10 * np.log10(b / 2))
    assert noise.db([]) == EQUAL_DB


def test_tensors_too_large_for_one_pass_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made, tensors = insert_qdq(chain(), PLACED, SCALES), {"a": ("m", "m_dequantized"), "b": ("y", "y")}
    whole = accumulated(chain(), made, tensors, X)
    monkeypatch.setattr("edgekd.quantize.errors_by_node._TAPPED_BYTES", 8)  # two numbers
    assert accumulated(chain(), made, tensors, X) == whole
    assert [list(part) for part in errors_by_node._parts(Graph(chain()), tensors)] == [["a"], ["b"]]


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        OutputNoise(chain(), PLACED, SCALES, [], tmp_path)


def test_ratios_of_equal_tensors_and_of_values_that_are_not_finite_are_numbers() -> None:
    equal, broken = Noise(), Noise()
    equal.add(np.ones(3), np.ones(3))
    broken.add(np.ones(2), np.array([1, np.nan]))
    assert (equal.db, broken.db) == (EQUAL_DB, -EQUAL_DB)
    assert (to_db(0.01), to_share(20)) == (pytest.approx(20), pytest.approx(0.01))
    assert to_share(EQUAL_DB) == 0


def test_the_errors_of_a_convolutional_net_are_those_of_the_reference_evaluator(tmp_path: Path) -> None:
    net, spec = segmenter()
    nodes = (
        QuantizedNode("block.a", ("stem.relu.out",), "block.a.weight"),
        QuantizedNode("head", ("block.relu.out",), "head.weight"),
    )
    placement = Placement(
        nodes,
        {"stem.relu.out": U8, "block.relu.out": U8},
        {"block.a.weight": symmetric_weights(8), "head.weight": symmetric_weights(8)},
    )
    signed = {"dtype": np.int8}
    scales = {
        "stem.relu.out": scale(0.05),
        "block.relu.out": scale(0.05),
        "block.a.weight": scale(0.01, **signed),
        "head.weight": scale(0.02, **signed),
    }
    batches = [prepared(spec, image) for image in images(2)]
    found = OutputNoise(net, placement, scales, batches, tmp_path)
    exact = ReferenceEvaluator(net)
    for name in ("block.a", "head"):
        noise, made = Noise(), insert_qdq(net, placement, scales, [name])
        made.opset_import[0].version = 19  # the evaluator has no older DequantizeLinear
        oracle = ReferenceEvaluator(made)
        for batch in batches:
            noise.add(exact.run(None, batch)[0], oracle.run(None, batch)[0])
        assert found.db([name]) == pytest.approx(noise.db, abs=0.05)


def test_labels_are_traced_back_to_the_numbers_they_are_made_of() -> None:
    assert answers(Graph(segmenter()[0])) == ["logits"]
    assert answers(Graph(segmenter(has_argmax=True)[0])) == ["up.out"]


def test_a_layer_ends_behind_its_activation_function() -> None:
    graph = named(segmenter()[0])
    by_name = {node.name: node for node in graph.nodes}
    assert outputs_of(graph, by_name["stem"])[-1] == "stem.relu.out"
    assert outputs_of(graph, by_name["block.b"])[-1] == "block.b.out"  # an addition follows
    silu = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("Sigmoid", ["c"], ["s"], name="s"),
        helper.make_node("Mul", ["c", "s"], ["y"], name="y"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    gated = named(helper.make_model(helper.make_graph(silu, "g", ports[:1], ports[1:], [weight])))
    assert outputs_of(gated, gated.nodes[0])[-1] == "y"

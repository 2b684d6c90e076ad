"""Equalization of graphs made by hand: factors worked out on paper, and the same numbers bit for bit in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.quantize.equalization import equalize, pairs_of
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph

RNG = np.random.default_rng(0)


def network(between: str, is_depthwise: bool = False, is_forked: bool = False) -> onnx.ModelProto:
    """Return two convolutions of 4 channels with an operator between; channel 2 of the first is 64 times too large."""
    first = RNG.uniform(0.5, 1, (4, 3, 3, 3)).astype(np.float32)
    second = RNG.uniform(0.5, 1, (4, 1, 3, 3) if is_depthwise else (5, 4, 1, 1)).astype(np.float32)
    first[2] *= 64
    constants = {
        "w1": first, "b1": np.float32([0.1, -0.2, 3.0, 0.4]), "w2": second, "zero": np.float32(0), "six": np.float32(6)
    }  # fmt: skip
    nodes = [helper.make_node("Conv", ["image", "w1", "b1"], ["x"], name="first")]
    if between == "Clip":
        nodes.append(helper.make_node("Clip", ["x", "zero", "six"], ["y"], name="act"))
    elif between:
        nodes.append(helper.make_node(between, ["x"], ["y"], name="act"))
    group = {"group": 4} if is_depthwise else {}
    nodes.append(helper.make_node("Conv", ["y" if between else "x", "w2"], ["out"], name="second", **group))
    outputs = ["out"]
    if is_forked:
        nodes.append(helper.make_node("Sigmoid", ["y"], ["other"], name="fork"))
        outputs.append("other")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 12, 12))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(Graph(model).value(name))


def outputs(model: onnx.ModelProto, folder: Path) -> np.ndarray:
    image = np.sin(np.arange(432, dtype=np.float32)).reshape(1, 3, 12, 12)
    return np.asarray(runner(model, ["out"], folder)({"image": image})[0])


@pytest.mark.parametrize(
    ("between", "is_depthwise"), [("Relu", False), ("Relu", True), ("", False), ("LeakyRelu", True), ("Clip", True)]
)
def test_the_network_computes_the_same_numbers_and_both_ranges_meet(
    between: str, is_depthwise: bool, tmp_path: Path
) -> None:
    model = network(between, is_depthwise)
    before = outputs(model, tmp_path)
    assert equalize(model, has_clips=True) == ["first", "second"]
    onnx.checker.check_model(model)
    assert (outputs(model, tmp_path) == before).all()
    rows = np.abs(weight(model, "w1")).reshape(4, -1).max(axis=1)
    second = weight(model, "w2")
    columns = np.abs(second if is_depthwise else np.moveaxis(second, 1, 0)).reshape(4, -1).max(axis=1)
    assert (np.abs(np.log2(rows / columns)) <= 1).all()  # equal, but for a factor of a power of two


def test_the_factor_is_the_root_of_the_ratio_of_the_ranges() -> None:
    """Channel 2: 64 in the first against 1 in the second; sqrt(64 * 1) / 1 = 8 goes over, the bias with it."""
    model = network("Relu")
    for name in ("w1", "w2"):
        value = np.ones_like(weight(model, name))
        value[2 if name == "w1" else slice(0, 0)] *= 64
        next(one for one in model.graph.initializer if one.name == name).CopyFrom(numpy_helper.from_array(value, name))
    equalize(model)
    assert np.unique(weight(model, "w1")[2]) == 8
    assert np.unique(weight(model, "w2")[:, 2]) == 8
    assert weight(model, "b1").tolist() == pytest.approx([0.1, -0.2, 3.0 / 8, 0.4])
    assert (weight(model, "w1")[[0, 1, 3]] == 1).all()


def test_a_relu6_is_left_alone_unless_asked_for_and_keeps_its_bound() -> None:
    model = network("Clip", is_depthwise=True)
    assert equalize(model) == []
    assert [node.op_type for node in model.graph.node] == ["Conv", "Clip", "Conv"]
    equalize(model, has_clips=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Min", "Conv"]
    factor = 6 / weight(model, "act_bound").ravel()
    assert factor[2] == pytest.approx(8, rel=0.51)
    assert (np.log2(factor) == np.round(np.log2(factor))).all()


@pytest.mark.parametrize("net", [network("Relu", is_forked=True), network("Sigmoid"), network("HardSwish")])
def test_pairs_that_another_operator_reads_or_that_are_not_linear_are_left_alone(net: Any) -> None:
    assert list(pairs_of(Graph(net))) == []


def test_a_weight_that_two_convolutions_share_is_left_alone() -> None:
    model = network("Relu")
    model.graph.node.append(helper.make_node("Conv", ["image", "w1"], ["more"], name="twin"))
    assert list(pairs_of(Graph(model))) == []

"""Masks of attention get no scale: their nodes stay in float, and int8 keeps the float graph's pixels with every quantizer."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core import plugins
from edgekd.errors import TargetError
from edgekd.executors.local import open_reference
from edgekd.quantize.masks import mask_nodes
from edgekd.quantize.ptq import check_scales
from edgekd.quantize.schemes import nncf, qdq, qdq_signed
from edgekd.rewrites.graph import Graph, folded
from tests.attention_nets import FORMS, VALUES, masked_attention, smooth_images
from tests.small_nets import prepared

RUNS = [pytest.param(module, target, id=module.__name__.rpartition(".")[2])
        for module, target in ((qdq, "onnxruntime"), (qdq_signed, "onnxruntime"), (nncf, "openvino"))]  # fmt: skip
# Each form once, each value once: what a mask looks like and how large it is are found independently of each other.
CASES = [
    *((form, "-1e9") for form in FORMS),
    *(("add", value) for value in VALUES if value != "-1e9"),
    ("where", "-inf"),
]


def logits_of(session: Any, images: list[np.ndarray]) -> np.ndarray:
    with session as opened:
        return np.concatenate([opened.infer(prepared(opened.spec, image))["logits"].copy() for image in images])


@pytest.mark.parametrize(("module", "target"), RUNS)
@pytest.mark.parametrize(("form", "value"), CASES)
def test_int8_keeps_the_pixels_of_a_graph_with_a_mask(
    module: ModuleType, target: str, form: str, value: str, tmp_path: Path
) -> None:
    model, spec = masked_attention(form, VALUES[value])
    onnx.save(model, tmp_path / "float.onnx")
    (tmp_path / "out").mkdir()
    calibration = [prepared(spec, image) for image in smooth_images(6, seed=1)]
    result = module.quantize(tmp_path / "float.onnx", spec, calibration, tmp_path / "out", module.Options())
    assert sum(result.details["quantized_ops"].values()) >= 6  # it is not all left in float
    runtime, test = plugins.target(target), smooth_images(4, seed=9)
    expected = logits_of(open_reference(tmp_path / "float.onnx", spec), test)
    got = logits_of(runtime.session(result.model, spec, runtime.options()), test)
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.97


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("form", FORMS)
def test_the_nodes_between_mask_and_softmax_are_found(form: str, value: float) -> None:
    model, _ = masked_attention(form, value)
    before = ["n.penalty"] if form == "scaled" else []
    assert mask_nodes(Graph(model)) == [*before, "n.masked", "n.shares"]


def graph(nodes: list[Any], **constants: Any) -> Graph:
    """Return a graph from `x` (1, 2, 8, 8) to `y`."""
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return Graph(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([helper.make_node("Clip", ["x", "low", "high"], ["y"])], {"low": np.float32(0), "high": np.float32(3.4e38)}),
        ([helper.make_node("Add", ["x", "shift"], ["y"])], {"shift": np.full((1, 2, 1, 1), -100, np.float32)}),
        ([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": np.full((2, 2, 1, 1), 1e5, np.float32)}),
    ],
    ids=["bounds", "no softmax behind it", "weights"],
)
def test_numbers_that_are_no_masks_are_quantized(nodes: list[Any], constants: dict[str, Any]) -> None:
    assert mask_nodes(graph(nodes, **constants)) == []


def test_the_padding_of_a_pool_and_what_it_lays_bare_are_left_in_float() -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads", "least"], ["wide"]),
        helper.make_node("MaxPool", ["wide"], ["pooled"], kernel_shape=[3, 3]),
        helper.make_node("Conv", ["pooled", "w"], ["y"]),
    ]
    found = graph(
        nodes,
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        least=np.float32(-np.inf),
        w=np.ones((2, 2, 1, 1), np.float32),
    )
    assert mask_nodes(found) == ["Pad_0", "MaxPool_1"]


def test_constants_are_folded_by_hand_worked_values() -> None:
    fill = numpy_helper.from_array(np.array([-7], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["square"], ["filled"], value=fill),
        helper.make_node("Trilu", ["filled", "above"], ["triangle"], upper=1),
        helper.make_node("ReduceSum", ["x"], ["y"]),
    ]
    made = graph(nodes, square=np.array([3, 3]), above=np.array(1))
    values = folded(made)
    assert values["triangle"].tolist() == [[0, -7, -7], [0, 0, -7], [0, 0, 0]]
    assert "y" not in values
    assert "triangle" not in folded(made, most_bytes=8 * 8)


def test_a_scale_that_is_not_finite_is_refused_with_its_tensor() -> None:
    check_scales({"one": np.array([0.5, 2.0])}, "qdq")
    with pytest.raises(TargetError, match=r"qdq: tensor 'two': expected a finite scale, got \[inf\]; leave"):
        check_scales({"one": np.float32(1), "two": np.float32(np.inf)}, "qdq")

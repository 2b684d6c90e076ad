"""Placement, scales and the reference Q/DQ graph: values worked out by hand, and ONNX Runtime's quantizer as an oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.recipe import Export
from edgekd.errors import ArtifactError, RecipeError, TargetError
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.build import build_model
from edgekd.models.families import edgeseg
from edgekd.models.session import torch_spec
from edgekd.quantize.grids import Grid, Placement, QuantizedNode, is_non_negative, symmetric_weights
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale, calibrate, load_scales, method_of, save_scales, scale_of, weight_scale
from edgekd.quantize.schemes import nncf, qdq, qdq_signed, vendor
from edgekd.rewrites.graph import Graph
from tests.small_nets import segmenter

INT8 = Grid(8, is_signed=True, is_symmetric=True)
WEIGHTS = symmetric_weights(8)


def two_convolutions() -> onnx.ModelProto:
    """image (1, 1, 1, 2) -> 1x1 convolution to two channels, weights 2 and -1 -> Relu -> 1x1 convolution, weights 1 and 0.5."""
    first = np.array([2, -1], np.float32).reshape(2, 1, 1, 1)
    second = np.array([1, 0.5], np.float32).reshape(1, 2, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "a.weight"], ["a"], name="a"),
        helper.make_node("Relu", ["a"], ["r"], name="r"),
        helper.make_node("Conv", ["r", "b.weight"], ["logits"], name="b"),
    ]
    weights = [numpy_helper.from_array(first, "a.weight"), numpy_helper.from_array(second, "b.weight")]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 1, 1, 2))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 1, 1, 2))
    graph = helper.make_graph(nodes, "two", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


TWO = Placement(
    (QuantizedNode("a", ("image",), "a.weight"), QuantizedNode("b", ("r",), "b.weight")),
    {"image": INT8, "r": INT8},
    {"a.weight": Grid(8, True, True, 0, 127), "b.weight": Grid(8, True, True, 0, 127)},
)


def image(*values: float) -> dict[str, np.ndarray]:
    return {"image": np.array(values, np.float32).reshape(1, 1, 1, 2)}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def test_levels_and_types() -> None:
    assert Grid(8, True, True).levels == (-128, 127)
    assert Grid(8, False, False).levels == (0, 255)
    assert symmetric_weights(7).levels == (-63, 63)
    assert Grid(7, True, True, largest=64).levels == (-64, 64)
    assert Grid(16, False, False).dtype == np.uint16
    assert Grid(4, True, True).dtype == np.int8


def test_scales_cover_the_range_and_zero() -> None:
    assert scale_of(-1.27, 0.5, WEIGHTS) == Scale(np.float32(0.01), np.int8(0))
    made = scale_of(-1.0, 4.1, Grid(8, False, False))  # 5.1 / 255 = 0.02, zero point 1 / 0.02
    assert (made.scale, made.zero_point, made.zero_point.dtype) == (np.float32(0.02), 50, np.uint8)
    assert scale_of(2.0, 5.1, Grid(8, False, False)).zero_point == 0  # 0 is in the range
    assert scale_of(0.0, 2.55, Grid(8, False, True)).scale == np.float32(0.01)  # unsigned without a zero point
    assert scale_of(0.0, 0.0, INT8).scale == 1


def test_a_weight_has_one_scale_per_channel_or_one() -> None:
    weight = np.array([[1.27, -0.2], [0.3, -2.54]], np.float32)
    np.testing.assert_array_equal(weight_scale(weight, Grid(8, True, True, 0, 127)).scale, np.float32([0.01, 0.02]))
    np.testing.assert_array_equal(weight_scale(weight, Grid(8, True, True, 1, 127)).scale, np.float32([0.01, 0.02]))
    assert weight_scale(weight, WEIGHTS).scale == np.float32(0.02)
    assert weight_scale(weight, WEIGHTS).scale.shape == ()


def test_least_error_cuts_off_an_outlier() -> None:
    """Two bits hold -1, 0, 1. Ten values of 0.7 and one of 1: at scale 0.7 the error is 0.3^2, at scale 1 it is 10 * 0.3^2."""
    weight = np.array([[0.7] * 10 + [1.0]], np.float32)
    assert weight_scale(weight, symmetric_weights(2)).scale == 1
    found = weight_scale(weight, symmetric_weights(2), has_least_error=True).scale
    assert found == pytest.approx(0.73, abs=0.01)  # (10 * 0.7 + 1) / 11 = 0.727 is the exact minimum


def test_calibration_takes_the_extremes_of_all_images_or_their_means(tmp_path: Path) -> None:
    onnx.save(two_convolutions(), tmp_path / "two.onnx")
    batches = [image(-1, 2), image(3, 0)]  # Relu(2x): 4 and 6; Relu(-x): 1 and 0
    scales = calibrate(tmp_path / "two.onnx", TWO, batches)
    assert scales["image"].scale == np.float32(3 / 127)
    assert scales["r"].scale == np.float32(6 / 127)
    np.testing.assert_array_equal(scales["a.weight"].scale, np.float32([2 / 127, 1 / 127]))
    assert calibrate(tmp_path / "two.onnx", TWO, batches, "mean")["r"].scale == np.float32(5 / 127)
    with pytest.raises(
        RecipeError, match="ranges: expected one of minmax, mean, percentile, mse, got 'minmix'; did you"
    ):
        calibrate(tmp_path / "two.onnx", TWO, batches, "minmix")


def test_the_method_is_that_of_the_quantizers_options() -> None:
    assert [method_of(qdq.Options(calibration=one)) for one in ("minmax", "mean", "mse", "percentile", "entropy")] == [
        "minmax", "mean", "mse", "percentile", "minmax",
    ]  # fmt: skip
    assert method_of(qdq_signed.Options(calibration="mean")) == "mean"
    assert [method_of(nncf.Options(range=one)) for one in ("mean", "quantile")] == ["mean", "minmax"]
    assert method_of(vendor.Options()) == "minmax"


def test_percentile_and_least_error_cut_off_a_rare_value(tmp_path: Path) -> None:
    """A million values in [0, 1] and one of 100: 0.0005 % at each end, five values, lie outside."""
    values = np.linspace(0, 1, 1 << 20, dtype=np.float32)
    values[-1] = 100
    relu = helper.make_node("Relu", ["image"], ["r"], name="r")
    convolution = helper.make_node("Conv", ["r", "w"], ["logits"], name="b")
    shape = (1, 1, 1024, 1024)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph([relu, convolution], "one", infos[:1], infos[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "one.onnx"
    )
    placement = Placement((QuantizedNode("b", ("r",), "w"),), {"r": INT8}, {"w": WEIGHTS})
    batches = [{"image": values.reshape(shape)}]
    top = {
        m: float(calibrate(tmp_path / "one.onnx", placement, batches, m)["r"].scale) * 127
        for m in ("minmax", "percentile")
    }
    assert top["minmax"] == pytest.approx(100)
    assert top["percentile"] == pytest.approx(1, abs=0.1)  # a bin is 100 / 2048 wide
    assert float(calibrate(tmp_path / "one.onnx", placement, batches, "mse")["r"].scale) * 127 < 100


def test_scales_return_from_their_file_exactly(tmp_path: Path) -> None:
    scales = {
        "a": scale_of(-1.0, np.pi, Grid(8, False, False)),
        "w": scale_of(np.float32([-1, -2]), np.float32([0, 0.1]), WEIGHTS),
    }
    save_scales(scales, tmp_path / "scales.json")
    back = load_scales(tmp_path / "scales.json")
    for name, scale in scales.items():
        np.testing.assert_array_equal(back[name].scale, scale.scale)
        np.testing.assert_array_equal(back[name].zero_point, scale.zero_point)
        assert (back[name].scale.dtype, back[name].zero_point.dtype) == (np.float32, scale.zero_point.dtype)
    (tmp_path / "scales.json").write_text('{"a": 1}')
    with pytest.raises(ArtifactError, match="damaged scales"):
        load_scales(tmp_path / "scales.json")


def one_step(step: float) -> dict[str, Scale]:
    zero = np.int8(0)
    weights = {
        name: Scale(np.float32([0.5] * n), np.zeros(n, np.int8)) for name, n in (("a.weight", 2), ("b.weight", 1))
    }
    return {"image": Scale(np.float32(step), zero), "r": Scale(np.float32(1), zero), **weights}


def test_quantized_operators_compute_with_rounded_inputs() -> None:
    """Steps: image 1, r 1, weights 0.5. Image 1.4 and 200: 1 and 127. Relu: 2 and 254 -> 127; 0 and 0. Logits: 2 and 127."""
    made = insert_qdq(two_convolutions(), TWO, one_step(1))
    np.testing.assert_array_equal(run(made, image(1.4, 200)).ravel(), [2, 127])
    np.testing.assert_array_equal(
        run(made, image(-1.5, -0.5)).ravel(), [1, 0]
    )  # half to even: -2 and 0, times -1 times 0.5
    onnx.checker.check_model(made, full_check=True)
    assert [value.name for value in (*made.graph.input, *made.graph.output)] == ["image", "logits"]
    assert {"a.weight", "b.weight"}.isdisjoint(one.name for one in made.graph.initializer)


def test_only_the_chosen_operators_are_quantized() -> None:
    """Only b: the image stays 1.4 and 200, r is 2.8 -> 3 and 400 -> 127."""
    made = insert_qdq(two_convolutions(), TWO, one_step(1), nodes=["b"])
    np.testing.assert_array_equal(run(made, image(1.4, 200)).ravel(), [3, 127])
    assert [node.op_type for node in made.graph.node].count("QuantizeLinear") == 1
    assert [node.op_type for node in made.graph.node].count("DequantizeLinear") == 2  # r and b.weight
    untouched = insert_qdq(two_convolutions(), TWO, one_step(1), nodes=[])
    assert untouched.graph == two_convolutions().graph


def test_a_grid_of_fewer_bits_ends_at_its_last_level() -> None:
    placement = Placement(TWO.nodes, {"image": Grid(4, True, True), "r": INT8}, TWO.weights)
    np.testing.assert_array_equal(
        run(insert_qdq(two_convolutions(), placement, one_step(1)), image(1.4, 200)).ravel(), [2, 14]
    )


def test_an_opset_without_16_bits_is_refused() -> None:
    placement = Placement(TWO.nodes, {"image": Grid(16, True, True), "r": INT8}, TWO.weights)
    with pytest.raises(TargetError, match="need ONNX opset 21, the graph has 18; set export.opset=21"):
        insert_qdq(two_convolutions(), placement, one_step(1))


def test_schemes_place_by_the_rules_of_their_quantizers(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    signed = qdq_signed.grids(tmp_path / "float.onnx", spec, qdq_signed.Options(keep_float=("block.a",)))
    assert [node.name for node in signed.nodes] == ["stem", "block.b"]  # the head is float by default
    assert signed.nodes[1] == QuantizedNode("block.b", ("block.a.relu.out",), "block.b.weight")
    assert signed.weights["stem.weight"] == Grid(8, True, True, 0, 127)
    unsigned = qdq.grids(tmp_path / "float.onnx", spec, qdq.Options(float_head=False))
    assert [node.name for node in unsigned.nodes] == ["stem", "block.a", "block.b", "head"]
    assert unsigned.activations["image"] == Grid(8, False, False)
    assert unsigned.weights["stem.weight"] == Grid(7, True, True, 0, 64)
    openvino = nncf.grids(tmp_path / "float.onnx", spec, nncf.Options())
    assert openvino.activations["image"].is_signed
    assert not openvino.activations["stem.relu.out"].is_signed
    for bits, largest in ((7, 64), (8, 127)):
        wide = nncf.grids(tmp_path / "float.onnx", spec, nncf.Options(weight_bits=bits)).weights
        assert {grid.largest for grid in wide.values()} == {largest}
    for module in (qdq, qdq_signed, nncf):
        whole = module.grids(tmp_path / "float.onnx", spec, module.Options(weights="per_tensor")).weights
        assert {grid.axis for grid in whole.values()} == {None}
    assert vendor.grids(tmp_path / "float.onnx", spec, vendor.Options()).weights["head.weight"].axis == 0
    with pytest.raises(RecipeError, match="did you mean 'head'"):
        qdq.grids(tmp_path / "float.onnx", spec, qdq.Options(keep_float=("heed",)))


def test_signs_follow_from_the_operators() -> None:
    graph = Graph(segmenter()[0])
    assert is_non_negative(graph, "block.relu.out")
    assert not is_non_negative(graph, "block.add.out")
    assert not is_non_negative(graph, "image")


def test_onnx_runtimes_quantizer_makes_the_same_graph(tmp_path: Path) -> None:
    """A real student, batch norms with statistics: the same tensors, scales and integers as quantize_static."""
    torch.manual_seed(0)
    model = build_model("edgeseg", "n", "semantic", 5, edgeseg.Options())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    trained = torch_spec(model.eval(), "semantic", tuple("abcde"), (64, 64))
    settings = Export()
    spec, _ = export_onnx(model, deployed_spec(trained, model, settings), settings, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    batches = [{"image": rng.standard_normal((1, 3, 64, 64)).astype(np.float32)} for _ in range(3)]
    placement = qdq_signed.grids(tmp_path / "model.onnx", spec, qdq_signed.Options())
    scales = calibrate(tmp_path / "model.onnx", placement, batches)
    ours = insert_qdq(onnx.load(tmp_path / "model.onnx"), placement, scales, is_shared=True)
    assert "BatchNormalization" not in {node.op_type for node in ours.graph.node}
    theirs = qdq_signed.quantize(tmp_path / "model.onnx", spec, batches, tmp_path, qdq_signed.Options()).model
    found = {node.input[0]: node for node in Graph(onnx.load(theirs)).nodes if node.op_type == "QuantizeLinear"}
    graph = Graph(onnx.load(theirs))
    assert set(found) == {*placement.activations, *placement.weights}
    for name, scale in scales.items():
        np.testing.assert_array_equal(graph.value(found[name].input[1]), scale.scale, err_msg=name)
    np.testing.assert_array_equal(run(ours, batches[0]), run(onnx.load(theirs), batches[0]))

"""All quantizers on a small net: closeness, determinism, float parts, clean stdout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.core import plugins
from edgekd.errors import ArtifactError, DataError, RecipeError, TargetError
from edgekd.quantize.ptq import QuantizeResult, float_nodes, toolchain_errors
from edgekd.quantize.ranges import Scale, calibrate, integers
from edgekd.quantize.schemes import nncf, qdq, qdq_signed, vendor
from edgekd.rewrites.graph import Graph
from edgekd.targets.openvino.runtime import read_model
from tests.small_nets import images, prepared, segmenter

QUANTIZERS = [pytest.param(module, id=module.__name__.rpartition(".")[2]) for module in (qdq, qdq_signed, nncf)]


def run(module: ModuleType, folder: Path, seed: int = 1, **options: object) -> QuantizeResult:
    folder.mkdir(exist_ok=True)
    net, spec = segmenter()
    onnx.save(net, folder / "float.onnx")
    batches = [prepared(spec, image) for image in images(6, seed)]
    return module.quantize(folder / "float.onnx", spec, batches, folder, module.Options(**options))


def test_all_are_listed() -> None:
    assert {"qdq", "qdq_signed", "nncf"} <= set(plugins.names("quantizers"))


@pytest.mark.parametrize("module", QUANTIZERS)
def test_the_same_calibration_gives_the_same_model(module: ModuleType, tmp_path: Path) -> None:
    """Compared in the .bin: OpenVINO numbers unnamed nodes of the .xml through the life of a process."""
    first, second, other = run(module, tmp_path / "a"), run(module, tmp_path / "b"), run(module, tmp_path / "c", seed=2)
    assert first.model.suffix == module.SUFFIX
    numbers = {".xml": ".bin"}.get(module.SUFFIX, module.SUFFIX)
    content = [result.model.with_suffix(numbers).read_bytes() for result in (first, second, other)]
    assert content[0] == content[1] != content[2]
    assert first.details == second.details


@pytest.mark.parametrize("module", QUANTIZERS)
def test_details_are_json_and_count_the_operators(module: ModuleType, tmp_path: Path) -> None:
    details = run(module, tmp_path, float_head=False).details
    assert json.loads(json.dumps(details))["calibration_batches"] == 6
    assert details["kept_float"] == []
    assert {**details["quantized_ops"], **details["float_ops"]}.keys() >= {"Add"}
    convolutions = {"qdq": "Conv", "qdq_signed": "Conv", "nncf": "Convolution"}[details["quantizer"]]
    assert details["quantized_ops"][convolutions] == 4
    assert details["versions"]


@pytest.mark.parametrize("module", QUANTIZERS)
def test_a_kept_node_and_the_head_stay_float(module: ModuleType, tmp_path: Path) -> None:
    details = run(module, tmp_path, float_head=True, keep_float=("block.?",)).details
    assert details["kept_float"] == ["block.a", "block.b", "head", "up"]
    convolutions = {"qdq": "Conv", "qdq_signed": "Conv", "nncf": "Convolution"}[details["quantizer"]]
    assert details["quantized_ops"][convolutions] == 1
    assert details["float_ops"][convolutions] == 3


@pytest.mark.parametrize("module", QUANTIZERS)
def test_a_pattern_that_matches_nothing_is_refused(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"keep_float: 'heed' matches no node of the graph; did you mean 'head'\?"):
        run(module, tmp_path, keep_float=("stem*", "heed"))


@pytest.mark.parametrize("module", QUANTIZERS)
def test_an_empty_calibration_set_is_refused(module: ModuleType, tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    with pytest.raises(DataError, match="calibration set is empty"):
        module.quantize(tmp_path / "float.onnx", spec, [], tmp_path, module.Options())


@pytest.mark.parametrize("module", QUANTIZERS)
def test_a_damaged_model_is_refused(module: ModuleType, tmp_path: Path) -> None:
    _, spec = segmenter()
    (tmp_path / "float.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(ArtifactError, match="not a readable ONNX file"):
        module.quantize(tmp_path / "float.onnx", spec, [prepared(spec, images(1)[0])], tmp_path, module.Options())


@pytest.mark.parametrize("module", QUANTIZERS)
def test_stdout_stays_clean(module: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(module, tmp_path)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("module", [pytest.param(qdq, id="qdq"), pytest.param(qdq_signed, id="qdq_signed")])
def test_ranges_of_edgekds_own_reach_the_file(module: ModuleType, tmp_path: Path) -> None:
    """`mean`: the scale of the input by hand, from each image's extremes. `mse`: no scale is larger than that of the extremes."""
    made = {name: run(module, tmp_path / name, calibration=name) for name in ("minmax", "mean", "mse")}
    scales = {name: Graph(onnx.load(one.model)).value("image_scale").item() for name, one in made.items()}
    inputs = [prepared(segmenter()[1], image)["image"] for image in images(6)]
    low, high = (np.mean([getattr(one, end)() for one in inputs]) for end in ("min", "max"))
    expected = (high - low) / 255 if module is qdq else max(-low, high) / 127
    assert scales["mean"] == pytest.approx(expected, rel=1e-5)
    assert scales["mean"] < scales["minmax"]
    assert scales["mse"] <= scales["minmax"] * 1.0001
    assert made["mean"].details["ranges"]["not_taken"] == []


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_other_calibrations_of_qdq_run_quietly(
    calibration: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(qdq, tmp_path, calibration=calibration).details["quantized_ops"]
    assert capfd.readouterr().out == ""


def test_weights_use_seven_bits_unless_asked_for_eight(tmp_path: Path) -> None:
    for name, options, largest in (
        ("seven", {}, 64),
        ("seven too", {"weight_bits": 7}, 64),
        ("eight", {"weight_bits": 8}, 127),
    ):
        model = onnx.load(run(qdq, tmp_path / name, **options).model)
        weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("weight_quantized")]
        assert weights
        assert max(int(np.abs(w.astype(int)).max()) for w in weights) == largest


def test_weights_are_symmetric_and_per_channel(tmp_path: Path) -> None:
    model = onnx.load(run(qdq, tmp_path).model)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert tensors["stem.weight_scale"].shape == (8,)
    assert not tensors["stem.weight_zero_point"].any()


@pytest.mark.parametrize("module", [pytest.param(qdq, id="qdq"), pytest.param(qdq_signed, id="qdq_signed")])
def test_weights_per_tensor_have_one_scale_from_the_largest_weight(module: ModuleType, tmp_path: Path) -> None:
    model = onnx.load(run(module, tmp_path, weights="per_tensor").model)
    scales = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer if one.name.endswith("_scale")}
    weights = {one.name: numpy_helper.to_array(one) for one in segmenter()[0].graph.initializer}
    steps = {qdq: 63, qdq_signed: 127}[module]  # 7 bits reach from -64 to 63 here: ONNX Runtime divides by half of 127
    for name in ("stem.weight", "block.a.weight"):
        assert scales[f"{name}_scale"] == pytest.approx(np.abs(weights[name]).max() / steps, rel=0.02)


def test_nncfs_weights_per_tensor_have_one_scale(tmp_path: Path) -> None:
    shapes = {}
    for chosen in ("per_channel", "per_tensor"):
        operators = read_model(run(nncf, tmp_path / chosen, weights=chosen).model).get_ordered_ops()
        shapes[chosen] = [
            op.input_value(1).get_node().get_data().size
            for op in operators
            if op.get_type_name() == "Multiply" and op.input_value(0).get_node().get_type_name() == "Convert"
        ]
    assert shapes == {"per_channel": [8, 8, 8, 3], "per_tensor": [1, 1, 1, 1]}


def test_signed_pairs_sit_where_tensorrt_looks_for_them(tmp_path: Path) -> None:
    model = onnx.load(run(qdq_signed, tmp_path, float_head=False).model)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        if node.op_type == "Conv":
            assert [producer[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert node.input[2] in constants  # the bias stays float
            assert constants[node.input[2]].dtype == np.float32
    # The block's input is quantized once, for its first convolution and for the addition that skips the block.
    (addition,) = [node for node in model.graph.node if node.op_type == "Add"]
    (first,) = [node for node in model.graph.node if node.name == "block.a"]
    assert first.input[0] in addition.input
    assert model.graph.output[0].name not in {
        o for n in model.graph.node if n.op_type.endswith("Linear") for o in n.output
    }


@pytest.mark.parametrize(
    ("task", "kept"), [("semantic", []), ("detection", ["head", "up"]), ("instance", ["head", "up"])]
)
def test_nncf_leaves_the_heads_of_objects_in_float(task: str, kept: list[str], tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    batches = [prepared(spec, image) for image in images(2)]
    result = nncf.quantize(tmp_path / "float.onnx", replace(spec, task=task), batches, tmp_path, nncf.Options())
    assert result.details["kept_float"] == kept


def test_nncf_corrects_biases(tmp_path: Path) -> None:
    """OpenVINO's ONNX reader hides the biases from NNCF unless constants are folded first."""
    plain, corrected = run(nncf, tmp_path / "a", bias_correction="none"), run(nncf, tmp_path / "b")
    assert plain.model.with_suffix(".bin").read_bytes() != corrected.model.with_suffix(".bin").read_bytes()


def test_the_head_reaches_back_to_the_last_operator_with_weights() -> None:
    net, _ = segmenter(has_argmax=True)
    assert float_nodes(Graph(net), (), keep_head=True) == ["head", "up", "argmax", "cast"]
    assert float_nodes(Graph(net), ("stem*",), keep_head=False) == ["stem", "stem.relu"]


def test_vendor_hands_over_the_float_model_and_the_pixels_of_the_images(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    given = images(3)
    batches = [prepared(spec, image) for image in given]
    (tmp_path / "out").mkdir()
    result = vendor.quantize(tmp_path / "float.onnx", spec, batches, tmp_path / "out", vendor.Options())
    assert result.pixels is not None
    assert result.model.read_bytes() == (tmp_path / "float.onnx").read_bytes()
    pixels = np.load(result.pixels)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, *spec.preprocess.size, 3))
    assert all(np.array_equal(one, image) for one, image in zip(pixels, given, strict=True))


@pytest.mark.parametrize("module", QUANTIZERS)
def test_nodes_without_names_are_quantized_like_named_ones(module: ModuleType, tmp_path: Path) -> None:
    """Before they had names, the head's name was that of all of them, and nothing was quantized."""
    named = run(module, tmp_path / "named", float_head=True)
    net, spec = segmenter()
    for one in net.graph.node:
        one.name = ""
    onnx.save(net, tmp_path / "float.onnx")
    batches = [prepared(spec, image) for image in images(6)]
    (tmp_path / "out").mkdir()
    result = module.quantize(tmp_path / "float.onnx", spec, batches, tmp_path / "out", module.Options(float_head=True))
    convolutions = {"qdq": "Conv", "qdq_signed": "Conv", "nncf": "Convolution"}[result.details["quantizer"]]
    for kind in ("quantized_ops", "float_ops"):
        assert result.details[kind][convolutions] == named.details[kind][convolutions]
    assert len(result.details["kept_float"]) == 2


@pytest.mark.parametrize("module", QUANTIZERS)
@pytest.mark.parametrize(("groups", "out"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_a_transposed_convolution_in_groups_is_quantized_or_left_in_float(
    module: ModuleType, groups: int, out: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    net, spec = segmenter()
    up = onnx.helper.make_node(
        "ConvTranspose",
        ["block.relu.out", "up.w", "up.b"],
        ["wide"],
        name="grow",
        strides=[1, 1],
        pads=[1] * 4,
        group=groups,
    )
    for name, shape in (("up.w", (8, out, 3, 3)), ("up.b", (groups * out,))):
        net.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 3, name))
    head = next(place for place, one in enumerate(net.graph.node) if one.name == "head")
    net.graph.node[head].input[0] = "wide"
    net.graph.node.insert(head, up)
    onnx.save(net, tmp_path / "float.onnx")
    (tmp_path / "out").mkdir()
    batches = [prepared(spec, image) for image in images(4)]
    details = module.quantize(tmp_path / "float.onnx", spec, batches, tmp_path / "out", module.Options()).details
    assert ("grow" in details["kept_float"]) == (module is qdq and groups > 1)


def test_an_exception_of_a_toolchain_is_one_line_with_the_node_it_worked_on(tmp_path: Path) -> None:
    def quantize(node: onnx.NodeProto) -> None:
        raise ValueError(f"operands could not be\nbroadcast: {node.op_type}")

    names = [one.name for one in segmenter()[0].graph.node]
    words = (
        "qdq: its tool fails at node 'block.a': ValueError: operands could not be broadcast: Conv; leave the node in float: "
        "quantize.options.qdq.keep_float: ['block.a']"
    )
    node = next(one for one in segmenter()[0].graph.node if one.name == "block.a")
    with pytest.raises(TargetError) as caught, toolchain_errors("qdq", "its tool", names, tmp_path):
        quantize(node)
    assert str(caught.value) == words
    with pytest.raises(OSError, match="No space"), toolchain_errors("qdq", "its tool", names, tmp_path):
        raise OSError(28, "No space left on device")
    del node
    with pytest.raises(TargetError, match="fails: KeyError"), toolchain_errors("qdq", "its tool", names, tmp_path):
        raise KeyError("unheard of")


def test_nncfs_settings_for_transformers_and_other_ranges_run(tmp_path: Path) -> None:
    plain, other = run(nncf, tmp_path / "plain"), run(nncf, tmp_path / "other", transformer=True, range="histogram")
    assert other.details["quantized_ops"]["Convolution"] == 4
    weights = [one.model.with_suffix(".bin").read_bytes() for one in (plain, other)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("chosen", ["minmax", "mean"])
def test_nncfs_ranges_are_true_extremes_or_the_mean_of_each_images(chosen: str, tmp_path: Path) -> None:
    """The image's own range, by hand: the FakeQuantize of the input covers the extremes of all images, or their mean."""
    result = run(nncf, tmp_path, range=chosen)
    _, spec = segmenter()
    inputs = [prepared(spec, image)["image"] for image in images(6)]
    extremes = [max(abs(float(one.min())), abs(float(one.max()))) for one in inputs]
    expected = max(extremes) if chosen == "minmax" else None
    model = read_model(result.model)
    (quantizer,) = [
        op
        for op in model.get_ops()
        if op.get_type_name() == "FakeQuantize" and op.input_value(0).get_node().get_type_name() == "Parameter"
    ]
    high = float(quantizer.input_value(2).get_node().get_data().max())
    if expected is not None:
        assert high == pytest.approx(expected, rel=0.02)
    else:
        lows, highs = [float(one.min()) for one in inputs], [float(one.max()) for one in inputs]
        assert high == pytest.approx(max(-np.mean(lows), np.mean(highs)), rel=0.02)


@pytest.mark.parametrize("module", [qdq, qdq_signed])
def test_imported_scales_take_the_place_of_calibrated_ones(module: ModuleType, tmp_path: Path) -> None:
    """Scales that no calibration gives, of every tensor: all are in the file, also where a channel's largest weight is smaller."""
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    batches = [prepared(spec, image) for image in images(2)]
    options = module.Options(float_head=False)
    placement = module.grids(tmp_path / "float.onnx", spec, options)
    scales = {
        name: Scale(one.scale * np.float32(1.37), one.zero_point)
        for name, one in calibrate(tmp_path / "float.onnx", placement, batches).items()
    }
    result = module.quantize(tmp_path / "float.onnx", spec, batches, tmp_path, options, scales)
    assert result.details["ranges"] == {"imported": 8, "not_taken": [], "unknown": []}
    with pytest.raises(TargetError, match="the graph has no tensor 'gone'"):
        module.quantize(tmp_path / "float.onnx", spec, batches, tmp_path, options, {"gone": scales["stem.weight"]})
    made = Graph(onnx.load(result.model))
    (quantizer,) = [
        node for node in made.nodes if node.op_type == "QuantizeLinear" and node.input[0] == "block.a.relu.out"
    ]
    assert made.value(quantizer.input[1]) == scales["block.a.relu.out"].scale
    assert made.value(quantizer.input[2]).dtype == scales["block.a.relu.out"].zero_point.dtype
    whole = {name: made.value(name) for name in made.constants}
    weight = whole["block.a.weight_quantized"] if module is qdq else None
    if weight is not None:
        expected = integers(
            Graph(net).value("block.a.weight"), scales["block.a.weight"], placement.weights["block.a.weight"], 0
        )
        np.testing.assert_array_equal(weight, expected)
        assert np.abs(weight).max() == round(64 / 1.37)

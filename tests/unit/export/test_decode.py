"""Decoding and suppression inside the graph: the same detections as numpy's, in ONNX Runtime and OpenVINO, float and int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.detection import DECODE, Detections, Selection, detections
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core import plugins
from edgekd.errors import TargetError, UserError
from edgekd.export.decode import append, decoded_outputs
from edgekd.preflight.check import Subject, Toward, check
from edgekd.targets.base import CompileRequest
from edgekd.targets.onnxruntime.target import import_onnxruntime
from edgekd.targets.tensorrt_rtx import target as tensorrt_rtx

SIZE, STRIDES, CLASSES, BINS, MIXES = (64, 96), (8, 16), ("ball", "ring", "sign"), 17, 5
TARGETS = [("onnxruntime", "qdq"), ("openvino", "nncf")]


def contract(task: str, resize: str = "stretch") -> ModelSpec:
    channels = {"scores": len(CLASSES), "boxes": 4 * BINS, "coefficients": MIXES if task == "instance" else 0}
    outputs = [
        TensorSpec(f"{role}_{stride}", "float32", (1, count, SIZE[0] // stride, SIZE[1] // stride), role)
        for stride in STRIDES
        for role, count in channels.items()
        if count
    ]
    if task == "instance":
        outputs.append(TensorSpec("prototypes", "float32", (1, MIXES, SIZE[0] // 4, SIZE[1] // 4), "prototypes"))
    image = TensorSpec("image", "float32", (1, 3, *SIZE), "image")
    return ModelSpec(task, CLASSES, 255, (image,), tuple(outputs), Preprocess(SIZE, resize=resize))


def detector(spec: ModelSpec, how: str, seed: int = 0, slope: float = 0.0) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a detector of one convolution per head, whose scores reach above a half, and its contract.

    Logits of a box side fall by `slope` per bin, so that boxes become small.
    """
    rng = np.random.default_rng(seed)
    weights, nodes = [], []
    for head in spec.outputs:
        stride = SIZE[0] // head.shape[2]
        spread, bias = {"scores": (0.4, -1.5), "boxes": (0.3, 0)}.get(head.role, (0.1, 0))
        weight = rng.normal(0, spread, (head.shape[1], 3, stride, stride)).astype(np.float32) / stride
        weights += [numpy_helper.from_array(weight, f"{head.name}.w")]
        falling = -slope * (np.arange(head.shape[1]) % BINS) if head.role == "boxes" else np.zeros(head.shape[1])
        weights += [numpy_helper.from_array((falling + bias).astype(np.float32), f"{head.name}.b")]
        inputs = ["image", f"{head.name}.w", f"{head.name}.b"]
        nodes.append(helper.make_node("Conv", inputs, [head.name], f"head.{head.name}", strides=[stride] * 2))
    info = helper.make_tensor_value_info
    image = info("image", TensorProto.FLOAT, (1, 3, *SIZE))
    outputs = [info(head.name, TensorProto.FLOAT, head.shape) for head in spec.outputs]
    graph = helper.make_graph(nodes, "detector", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if how != "heads":
        spec = replace(spec, outputs=decoded_outputs(spec, how))
        append(model, spec, how)
    onnx.checker.check_model(model, full_check=True)
    return model, spec


def images(count: int, seed: int = 3) -> list[np.ndarray]:
    return [image[None] for image in np.random.default_rng(seed).standard_normal((count, 3, *SIZE)).astype(np.float32)]


def found(target: str, model: Path, spec: ModelSpec, precision: str, inputs: list[np.ndarray]) -> list[Detections]:
    module = plugins.target(target)
    folder = model.parent / f"{target}-{precision}"
    folder.mkdir()
    built = module.build_engine(CompileRequest(model, spec, precision, folder, module.options()))
    with module.session(built.engine, built.spec, module.options()) as session:
        return [detections(session.infer({"image": image}), spec, (80, 150)) for image in inputs]


def assert_same(one: Detections, other: Detections, atol: float) -> None:
    assert len(one.boxes) == len(other.boxes) > 5
    np.testing.assert_allclose(other.scores, one.scores, atol=atol)
    np.testing.assert_allclose(other.boxes, one.boxes, atol=100 * atol)
    assert other.labels.tolist() == one.labels.tolist()
    assert (one.masks is None) == (other.masks is None)
    if one.masks is not None and other.masks is not None:
        assert (one.masks.whole() != other.masks.whole()).mean() <= atol


@pytest.mark.parametrize("how", ["boxes", "nms"])
@pytest.mark.parametrize("task", ["detection", "instance"])
@pytest.mark.parametrize("target", [name for name, _ in TARGETS])
def test_the_graph_finds_what_numpy_finds(target: str, task: str, how: str, tmp_path: Path) -> None:
    results = {}
    for kind in ("heads", how):
        model, spec = detector(contract(task), kind)
        (tmp_path / kind).mkdir()
        onnx.save(model, tmp_path / kind / "model.onnx")
        results[kind] = found(target, tmp_path / kind / "model.onnx", spec, "fp32", images(8))
    for pair in zip(results["heads"], results[how], strict=True):
        assert_same(*pair, atol=1e-5)


@pytest.mark.parametrize("how", ["boxes", "nms"])
@pytest.mark.parametrize(("target", "quantizer"), TARGETS)
def test_int8_leaves_the_decoding_in_float(target: str, quantizer: str, how: str, tmp_path: Path) -> None:
    """By equality: the quantized graph finds exactly what numpy finds in the heads of the one quantized without decoding."""
    module = plugins.load("quantizers", quantizer)
    results = {}
    for kind in ("heads", how):
        model, spec = detector(contract("instance"), kind)
        folder = tmp_path / kind
        folder.mkdir()
        onnx.save(model, folder / "float.onnx")
        batches = [{"image": image} for image in images(6, seed=4)]
        result = module.quantize(folder / "float.onnx", spec, batches, folder, module.Options(float_head=False))
        decoding = [node.name for node in model.graph.node if node.name.startswith(DECODE)]
        assert set(decoding) <= set(result.details["kept_float"])
        assert result.details["quantized_ops"]
        results[kind] = found(target, result.model, spec, "int8", images(8))
    for pair in zip(results["heads"], results[how], strict=True):
        assert_same(*pair, atol=1e-5)


@pytest.mark.parametrize("how", ["boxes", "nms"])
def test_the_bars_of_a_letterbox_take_no_place(how: str, tmp_path: Path) -> None:
    """Far more than 100 small boxes that do not overlap, most of them in the bars: the image is on 16 of 64 rows."""
    results = {}
    for kind in ("heads", how):
        model, spec = detector(contract("detection", "letterbox"), kind, slope=2)
        onnx.save(model, tmp_path / f"{kind}.onnx")
        session = import_onnxruntime().InferenceSession(tmp_path / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in spec.outputs]
        outputs = dict(zip(names, session.run(names, {"image": images(1)[0]}), strict=True))
        results[kind] = detections(outputs, spec, (40, 240))
        everywhere = detections(outputs, spec, SIZE, Selection(most=360))
        assert len(everywhere.boxes) > 200
    assert_same(results["heads"], results[how], atol=1e-5)


def test_nothing_found_is_an_empty_result(tmp_path: Path) -> None:
    model, spec = detector(contract("instance"), "nms")
    for weight in model.graph.initializer:
        if weight.name.startswith("scores") and weight.name.endswith(".b"):
            weight.CopyFrom(numpy_helper.from_array(np.full(len(CLASSES), -50, np.float32), weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    for target, _ in TARGETS:
        (one,) = found(target, tmp_path / "model.onnx", spec, "fp32", images(1))
        assert one.boxes.shape == (0, 4)
        assert one.masks is not None
        assert one.masks.whole().shape == (0, 80, 150)


def test_outputs_have_fixed_sizes_and_say_what_they_are() -> None:
    spec = contract("instance")
    points = 8 * 12 + 4 * 6
    boxes = {tensor.role: tensor.shape for tensor in decoded_outputs(spec, "boxes")}
    assert boxes == {
        "decoded_boxes": (1, 4, points),
        "decoded_scores": (1, 3, points),
        "decoded_coefficients": (1, 5, points),
        "prototypes": (1, 5, 16, 24),
    }
    nms = {tensor.role: (tensor.dtype, tensor.shape) for tensor in decoded_outputs(contract("detection"), "nms")}
    assert nms == {
        "found_boxes": ("float32", (1, 100, 4)),
        "found_scores": ("float32", (1, 100)),
        "found_labels": ("int32", (1, 100)),
    }
    letterboxed = decoded_outputs(contract("detection", "letterbox"), "nms")  # what the bars take is known at the image
    assert letterboxed[0].shape == (1, 3 * points, 4)


def test_a_segmenter_is_refused() -> None:
    with pytest.raises(UserError, match="a semantic network has no boxes; leave it out"):
        decoded_outputs(replace(contract("detection"), task="semantic"), "nms")


@pytest.mark.parametrize(("how", "is_built"), [("boxes", True), ("nms", False)])
def test_tensorrt_rtx_builds_decoding_and_check_says_that_it_cannot_suppress(
    tmp_path: Path, how: str, is_built: bool
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    model, spec = detector(contract("detection"), how)
    onnx.save(model, tmp_path / "model.onnx")
    report = check(Subject(tmp_path / "model.onnx", how, spec), Toward("tensorrt_rtx"))
    assert report.is_ok == is_built
    assert [one.rule for one in report.findings if one.is_fatal] == ([] if is_built else ["suppression"])
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp32", tmp_path, tensorrt_rtx.Options())
    if is_built:
        assert tensorrt_rtx.build_engine(request).engine.is_file()
    else:
        with pytest.raises(TargetError):
            tensorrt_rtx.build_engine(request)

"""Engines that no network can become are refused before anything is trained, and by the build, too."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekd.board.sysinfo import environment
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine
from edgekd.core.stage import StageJob
from edgekd.data.splits import open_split
from edgekd.errors import TargetError
from edgekd.executors import venvs
from edgekd.preflight.check import Toward, check_engine, check_engines, check_recipe
from edgekd.preflight.noise import check_quantizers
from edgekd.preflight.stage import run
from edgekd.targets.base import CompileRequest
from tests.small_nets import segmenter
from tests.unit.core.small_recipe import small_recipe

REFUSED: list[tuple[str, str, dict[str, Any], bool, str]] = [
    ("onnxruntime", "fp32", {"providers": ["CUDAExecutionProvder"]}, False, "did you mean 'CUDAExecutionProvider'"),
    (
        "onnxruntime", "fp32", {"provider_options": {"XnnpackExecutionProvider": {"a": "1"}}}, False,
        "expected options of CPUExecutionProvider",
    ),
    (
        "onnxruntime", "fp32",
        {"providers": ["TensorrtExecutionProvider"], "provider_options": {"TensorrtExecutionProvider": {"trt_fp16_enable": "True"}}},
        False, "contradicts",
    ),
    ("openvino", "fp32", {"device": "GPUU"}, False, "no device GPUU here"),
    ("openvino", "fp32", {"device": "CPU:GPU"}, False, "no device CPU:GPU here"),
    ("openvino", "fp32", {"device": ""}, False, "expected a device, e.g. CPU, GPU or NPU, got ''"),
    ("openvino", "fp32", {"inference_precision": "f16"}, False, "contradicts inference_precision f16"),
    ("openvino", "fp32", {"device": "AUTO"}, False, "chooses by itself"),
    ("openvino", "fp32", {"device": "NPU"}, False, "the NPU computes in"),
    ("rknn", "fp16", {"auto_hybrid": True}, False, "auto_hybrid contradicts precision fp16"),
    ("tensorrt", "fp32", {"dla_core": 0}, False, "the DLA computes in fp16 and int8"),
    ("rknn", "fp16", {}, True, "export with export.input=float32_nchw"),
    ("tensorrt_rtx", "fp16", {"compute_capabilities": ["SM87"]}, False, "'SM87' is not one of"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "precision", "options", "is_uint8", "words"), REFUSED)
def test_what_cannot_be_built_of_any_network_is_refused_at_once(
    target: str, precision: str, options: dict[str, Any], is_uint8: bool, words: str, tmp_path: Path
) -> None:
    if target == "tensorrt_rtx":
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    engine = Engine(target=target, precision=precision, options=options)
    model, spec = segmenter(is_uint8)
    with pytest.raises(TargetError) as refusal:
        check_engine(engine, spec)
    assert str(refusal.value).startswith(f"engines: {engine.id}: ")
    assert words in str(refusal.value)
    if target != "rknn":  # whose toolkit is in another virtualenv
        onnx.save(model, tmp_path / "model.onnx")
        own = plugin_options("targets", target, options, "options")
        with pytest.raises(TargetError):
            plugins.target(target).build_engine(CompileRequest(tmp_path / "model.onnx", spec, precision, tmp_path, own))


@pytest.mark.parametrize(
    ("target", "precision"),
    [(name, p) for name in plugins.names("targets") for p in plugins.target(name).info.precisions],
)
def test_the_defaults_of_every_target_are_taken_but_what_this_cpu_does_not_compute_in(
    target: str, precision: str
) -> None:
    engine = Engine(target=target, precision=precision)
    if (target, precision) == ("openvino", "fp16") and "avx512_fp16" not in (environment()["cpu_flags"] or ()):
        pytest.importorskip("openvino", reason="openvino is not installed")
        with pytest.raises(TargetError, match="CPU does not compute in f16 here"):
            check_engine(engine, segmenter()[1])
    else:
        check_engine(engine, segmenter()[1])


@pytest.mark.parametrize("check", ["stop", "warn"])
def test_the_recipe_says_whether_such_an_engine_stops_the_training(
    tmp_path: Path, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    engines = [{"target": "onnxruntime", "precision": "fp32", "options": {"providers": ["CPUExecutionProvidr"]}}]
    recipe = small_recipe(tmp_path, f"check={check}", engines=engines)
    with pytest.raises(TargetError) if check == "stop" else nullcontext() as refusal:
        check_engines(recipe, segmenter()[1], tmp_path / "no int8 engine reads it.onnx")
    said = str(refusal.value) if check == "stop" else caplog.messages[-1]
    assert "no provider is called 'CPUExecutionProvidr'" in said
    assert ("--set check=warn" in said) == (check == "stop")


@pytest.mark.parametrize("check", ["stop", "warn"])
def test_the_untrained_student_is_quantized_on_noise_for_int8_engines(
    tmp_path: Path, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a quantizer refuses would be missed after hours of training. Another variant's options do not matter."""
    net, spec = segmenter()
    onnx.save(net, tmp_path / "student.onnx")
    int8 = {"target": "onnxruntime", "precision": "int8"}
    quantize = {
        "options": {"qdq": {"keep_float": ["heed"]}},
        "variants": {"good": {"options": {"qdq": {"keep_float": ["head"]}}}},
    }
    engines = [int8, {**int8, "id": "good", "variant": "good"}, {**int8, "id": "twin"}]
    recipe = small_recipe(tmp_path, f"check={check}", engines=engines, quantize=quantize)
    said = r"keep_float: 'heed' matches no node of the graph; did you mean 'head'?"
    assert check_quantizers(recipe, tmp_path / "student.onnx", spec) == {"onnxruntime-int8": said, "twin": said}
    with pytest.raises(TargetError) if check == "stop" else nullcontext() as refusal:
        check_engines(recipe, spec, tmp_path / "student.onnx")
    heard = str(refusal.value) if check == "stop" else caplog.messages[-2]
    assert f"engines: onnxruntime-int8: quantizing the untrained student on noise: {said}" in heard


def test_a_check_of_a_recipe_refuses_such_an_engine_but_not_when_asked_about_another_target(tmp_path: Path) -> None:
    engines = [{"target": "onnxruntime", "precision": "fp32", "options": {"providers": ["CPUExecutionProvidr"]}}]
    recipe = small_recipe(tmp_path, engines=engines)
    with pytest.raises(TargetError, match="no provider is called 'CPUExecutionProvidr'"):
        check_recipe(recipe, ("ground", "thing"))
    assert [report.target for report in check_recipe(recipe, ("ground", "thing"), Toward("rknn", "rk3588"))] == ["rknn"]


def test_an_engine_that_nothing_here_can_try_is_said_before_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its toolchain or runtime would be missed after hours of training."""
    monkeypatch.setenv(venvs.ROOT_VARIABLE, str(tmp_path / "none"))
    engines = [
        {"target": "rknn", "precision": "fp16"},
        {"target": "openvino", "precision": "fp16", "options": {"device": "NPU.9"}},
        {"target": "onnxruntime", "precision": "fp32"},
    ]
    recipe = small_recipe(tmp_path, "check=warn", "export.input=float32_nchw", engines=engines)
    data = Artifact(tmp_path, {"kind": "dataset", "details": {"classes": list(open_split(recipe, "train").classes)}})
    run(StageJob(recipe, {"data": data}, tmp_path))
    said = [message for message in caplog.messages if "nothing here can try it" in message]
    assert len(said) == 2
    assert "rknn-fp16" in said[0]
    assert "edgekd toolchain install rknn" in said[0]
    assert "openvino-fp16" in said[1]

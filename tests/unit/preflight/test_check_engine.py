"""Engines that no network can become are refused before anything is trained, in the words in which the build refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekd.core import plugins
from edgekd.core.recipe import Engine
from edgekd.core.recipe_loading import plugin_options
from edgekd.errors import TargetError
from edgekd.preflight.run import check_engine
from edgekd.targets.base import CompileRequest
from tests.small_nets import segmenter

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
    ("openvino", "fp32", {"inference_precision": "f16"}, False, "contradicts inference_precision f16"),
    ("openvino", "fp32", {"device": "NPU"}, False, "the NPU computes in"),
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
            plugins.load("targets", target).build_engine(
                CompileRequest(tmp_path / "model.onnx", spec, precision, tmp_path, own)
            )


@pytest.mark.parametrize(
    ("target", "precision"),
    [(name, p) for name in plugins.names("targets") for p in plugins.load("targets", name).INFO.precisions],
)
def test_check_and_build_agree_on_what_a_recipe_may_ask_for(target: str, precision: str) -> None:
    """With the defaults all is taken, but what this CPU does not compute in."""
    engine = Engine(target=target, precision=precision)
    try:
        check_engine(engine, segmenter()[1])
    except TargetError as exc:
        assert (target, precision) == ("openvino", "fp16")
        assert "CPU does not compute in f16 here" in str(exc)

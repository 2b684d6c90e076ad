"""Quantized files that a target would misread, compute in float or saturate: refused in one line that names the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.sysinfo import adds_products_in_16_bits
from edgekd.compile import stage as compile_stage
from edgekd.core import plugins
from edgekd.core.recipe import Engine
from edgekd.errors import TargetError
from edgekd.executors.local import Local
from edgekd.preflight import check as preflight
from edgekd.quantize.schemes import nncf, qdq, qdq_signed
from edgekd.rewrites.graph import read_graph
from edgekd.targets.base import CompileRequest
from edgekd.targets.onnxruntime import target as ort
from edgekd.targets.openvino import target as openvino
from edgekd.targets.rknn.toolkit import rewritten
from tests.small_nets import images, prepared, segmenter

AVX2 = {"machine": "x86_64", "cpu_flags": ["avx2", "fma"], "cpu_model": "a CPU of 2016"}
VNNI = {"machine": "x86_64", "cpu_flags": ["avx2", "avx512_vnni"], "cpu_model": "a CPU of 2020"}
ARM = {"machine": "aarch64", "cpu_flags": ["asimd", "asimddp"], "cpu_model": "Cortex-A76"}
KINDS = {"uint16": TensorProto.UINT16, "int4": TensorProto.INT4, "float8e4m3fn": TensorProto.FLOAT8E4M3FN}


class Old(Local):
    """This machine with the facts of a CPU that has no VNNI."""

    def facts(self) -> Any:
        return {"environment": AVX2}


def pair_of(kind: int, path: Path) -> Path:
    """Write the small net with a Q/DQ pair of an element type before its first convolution."""
    net, _ = segmenter()
    net.opset_import[0].version, net.ir_version = 23, 11
    net.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    pair = [
        helper.make_node("QuantizeLinear", ["image", "scale"], ["q"], name="pair.q", output_dtype=kind),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"], name="pair.dq"),
    ]
    (stem,) = [node for node in net.graph.node if node.name == "stem"]
    stem.input[0] = "dq"
    rest = list(net.graph.node)
    del net.graph.node[:]
    net.graph.node.extend([*pair, *rest])
    onnx.save(net, path)
    return path


def made(module: Any, folder: Path, **options: Any) -> Path:
    """Return what a quantizer makes of the small net."""
    folder.mkdir(exist_ok=True)
    net, spec = segmenter()
    onnx.save(net, folder / "float.onnx")
    batches = [prepared(spec, image) for image in images(3)]
    return module.quantize(folder / "float.onnx", spec, batches, folder, module.Options(**options)).model


@pytest.mark.parametrize(
    ("facts", "expected"),
    [(AVX2, True), (VNNI, False), (ARM, False), ({"machine": "x86_64", "cpu_flags": None}, False),
     ({"machine": "x86_64", "cpu_flags": ["avx_vnni"]}, False), ({"machine": "AMD64", "cpu_flags": ["avx2"]}, True)],
)  # fmt: skip
def test_x86_without_vnni_adds_two_products_in_16_bits(facts: dict[str, Any], expected: bool) -> None:
    assert adds_products_in_16_bits(facts) is expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt_rtx"])
def test_pairs_of_other_types_than_8_bits_are_refused_and_name_the_node(target: str, kind: str, tmp_path: Path) -> None:
    record = plugins.target(target)
    try:
        record.runtime_version()
    except TargetError as exc:
        pytest.skip(str(exc))
    model, spec = pair_of(KINDS[kind], tmp_path / "model.onnx"), segmenter()[1]
    with pytest.raises(TargetError) as caught:
        record.build_engine(CompileRequest(model, spec, "int8", tmp_path, record.options()))
    text = str(caught.value)
    assert "\n" not in text
    if target != "openvino" or kind in text:  # OpenVINO may refuse the file itself, before its types are looked at
        assert f"node 'pair.q': precision int8 expected Q/DQ pairs of int8 or uint8, got {kind}" in text
    report = preflight.check(preflight.subject_of(model), preflight.Toward(target))
    found = {one.consequence for one in report.findings if one.rule == "other_quantization"}
    assert found == {"refused"}
    assert not report.is_ok


def test_a_toolchain_that_quantizes_by_itself_refuses_a_quantized_graph(tmp_path: Path) -> None:
    model = pair_of(TensorProto.INT8, tmp_path / "model.onnx")
    with pytest.raises(TargetError, match="quantizes the float model by itself, expected a graph without Q/DQ pairs"):
        rewritten(model, tmp_path / "out.onnx")
    report = preflight.check(preflight.subject_of(model), preflight.Toward("rknn", "rk3588"))
    assert [one.consequence for one in report.findings if one.rule == "quantized_graph"] == ["refused"]


def test_eight_bit_weights_saturate_without_vnni_and_seven_bits_nowhere(tmp_path: Path) -> None:
    """u8 * s8 in ONNX Runtime; s8 * s8 does not there, but in OpenVINO, which makes unsigned activations of them."""
    options = ort.Options(), openvino.Options()
    wide, narrow = made(qdq, tmp_path / "8", weight_bits=8), made(qdq, tmp_path / "7")
    signed = made(qdq_signed, tmp_path / "signed")
    for facts, saturates in ((AVX2, True), (VNNI, False), (ARM, False)):
        assert bool(ort.why_saturates(wide, options[0], facts)) is saturates
        assert bool(openvino.why_saturates(wide, options[1], facts)) is saturates
        assert bool(openvino.why_saturates(signed, options[1], facts)) is saturates
        assert ort.why_saturates(narrow, options[0], facts) == openvino.why_saturates(narrow, options[1], facts) == ""
        assert ort.why_saturates(signed, options[0], facts) == ""
    text = ort.why_saturates(wide, options[0], AVX2)
    assert text.startswith("node 'stem' has weights up to 127 steps, and this CPU has no VNNI")
    assert text.endswith("; quantize with weight_bits: 7")
    assert openvino.why_saturates(wide, openvino.Options(device="GPU"), AVX2) == ""


def test_the_weights_of_an_ir_are_read_as_integers(tmp_path: Path) -> None:
    wide, narrow = made(nncf, tmp_path / "8", weight_bits=8), made(nncf, tmp_path / "7")
    assert "has weights up to 12" in openvino.why_saturates(
        wide, openvino.Options(), AVX2
    )  # 127, or 126 by its rounding
    assert openvino.why_saturates(narrow, openvino.Options(), AVX2) == ""


def test_compiling_refuses_what_would_saturate_on_the_engines_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_stage, "executor_of", lambda board: Old())
    wide = made(qdq, tmp_path, weight_bits=8)
    engine = Engine(target="onnxruntime", precision="int8")
    with pytest.raises(TargetError, match="^onnxruntime-int8 on board local: node 'stem' has weights up to 127 steps"):
        compile_stage.check_sums(engine, wide)
    compile_stage.check_sums(engine, made(qdq, tmp_path))


def test_a_check_of_a_file_from_elsewhere_finds_the_overflow_on_this_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "executor_of", lambda board: Old())
    signed = made(qdq_signed, tmp_path)
    assert read_graph(signed).is_quantized
    report = preflight.check(preflight.subject_of(signed), preflight.Toward("openvino"))
    (found,) = [one for one in report.findings if one.rule == "overflow"]
    assert (found.consequence, found.fix) == ("silent_error", "quantize with weight_bits: 7")
    assert not report.is_ok
    assert preflight.check(preflight.subject_of(signed), preflight.Toward("onnxruntime")).is_ok

"""TensorRT-RTX: what is built, and Q/DQ graphs that it would misread. Engines need a GPU; these tests do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.errors import TargetError
from edgekd.quantize.schemes import qdq, qdq_signed
from edgekd.targets import tensorrt_rtx
from edgekd.targets.base import CompileRequest, CompileResult
from tests.small_nets import images, prepared, segmenter


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    onnx.save(segmenter()[0], tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


def built(model: Path, precision: str, **options: object) -> CompileResult:
    out = model.parent / "engine"
    out.mkdir(exist_ok=True)
    return tensorrt_rtx.build_engine(
        CompileRequest(model, segmenter()[1], precision, out, tensorrt_rtx.Options(**options))  # type: ignore[arg-type]
    )


def quantized(model: Path, scheme: object, **options: object) -> Path:
    spec = segmenter()[1]
    batches = [prepared(spec, image) for image in images(4)]
    return scheme.quantize(model, spec, batches, model.parent, scheme.Options(**options)).model  # type: ignore[attr-defined]


def test_every_convolution_of_our_int8_graph_is_quantized(model: Path) -> None:
    details = built(quantized(model, qdq_signed, float_head=False), "int8").details
    assert details["convolutions"] == details["quantized_convolutions"] == 4


def test_the_head_stays_float_by_default(model: Path) -> None:
    details = built(quantized(model, qdq_signed), "int8").details
    assert (details["convolutions"], details["quantized_convolutions"]) == (4, 3)


def test_an_engine_holds_code_for_every_capability_named(model: Path) -> None:
    one = built(model, "fp32", compute_capabilities=("SM86",)).engine.stat().st_size
    both = built(model, "fp32", compute_capabilities=("SM86", "SM120"))
    assert both.details["compute_capabilities"] == ["SM86", "SM120"]
    assert both.engine.stat().st_size > one


def test_a_jetsons_capability_is_refused(model: Path) -> None:
    with pytest.raises(TargetError, match="compute capability 'SM87' is not one of SM120"):
        built(model, "fp32", compute_capabilities=("SM87",))


def test_an_unsigned_graph_is_refused_with_the_node(model: Path) -> None:
    with pytest.raises(TargetError, match="expected an int8 zero point of 0, got (uint8|int32)") as caught:
        built(quantized(model, qdq), "int8")
    assert "node '" in str(caught.value)


def test_a_refused_operator_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    model, _ = segmenter()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Det"  # known to ONNX, not to the parser
    onnx.save(model, tmp_path / "float.onnx")
    with pytest.raises(TargetError, match="TensorRT-RTX cannot parse it|not a readable ONNX file"):
        built(tmp_path / "float.onnx", "fp32")


@pytest.mark.parametrize(
    ("zero", "fits"), [(np.int8(0), True), (np.uint8(0), False), (np.int8(3), False), (np.uint8(128), False)]
)
def test_only_a_signed_zero_point_of_0_is_read_rightly(zero: np.generic, fits: bool) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], name="quantize")
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(np.asarray(zero), "zero")])
    model = helper.make_model(graph)
    if fits:
        tensorrt_rtx.check_zero_points(model, Path("m.onnx"))
    else:
        with pytest.raises(
            TargetError, match=r"m.onnx: node 'quantize': expected an int8 zero point of 0, got u?int8 \["
        ):
            tensorrt_rtx.check_zero_points(model, Path("m.onnx"))


def test_a_missing_zero_point_is_unsigned_in_onnx_and_refused() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], name="quantize")
    with pytest.raises(TargetError, match="got uint8"):
        tensorrt_rtx.check_zero_points(helper.make_model(helper.make_graph([node], "g", [], [])), Path("m.onnx"))

"""TensorRT-RTX: what is built, and Q/DQ graphs that it would misread. Engines need a GPU; these tests do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.errors import ArtifactError, TargetError
from edgekd.quantize.schemes import qdq, qdq_signed
from edgekd.targets._nvidia import graph as nvidia_graph
from edgekd.targets._nvidia.builder import Build
from edgekd.targets._nvidia.versions import read_plan_header
from edgekd.targets.base import CompileRequest, CompileResult
from edgekd.targets.tensorrt_rtx import target as tensorrt_rtx
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


def test_a_mixed_engine_has_the_layers_that_were_chosen_in_float(model: Path) -> None:
    details = built(quantized(model, qdq_signed, keep_float=("block.a",)), "mixed").details
    assert (details["convolutions"], details["quantized_convolutions"]) == (4, 2)  # the head is the other one
    details = built(model, "mixed").details  # every layer in float
    assert (details["convolutions"], details["quantized_convolutions"]) == (4, 0)


def test_an_engine_holds_code_for_every_capability_named(model: Path) -> None:
    one = built(model, "fp32", compute_capabilities=("SM86",)).engine.stat().st_size
    both = built(model, "fp32", compute_capabilities=("SM86", "SM120"))
    assert both.details["compute_capabilities"] == ["SM86", "SM120"]
    assert both.engine.stat().st_size > one


@pytest.mark.parametrize(("float_layers", "dtype"), [("fp16", "HALF"), ("fp32", "FLOAT")])
def test_int8_engines_compute_the_rest_in_what_was_asked_for(
    float_layers: str, dtype: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    facts = Build.facts

    def look(build: Build) -> dict[str, Any]:
        layers = [build.network.get_layer(i) for i in range(build.network.num_layers)]
        seen.extend(str(one.get_output(0).dtype) for one in layers if one.type == build.trt.LayerType.CONVOLUTION)
        return facts(build)

    monkeypatch.setattr(Build, "facts", look)
    details = built(quantized(model, qdq_signed), "int8", float_layers=float_layers).details
    assert set(seen) == {f"DataType.{dtype}"}
    assert (details["quantized_convolutions"], details["float_layers"]) == (3, float_layers)


def test_the_plans_header_says_the_version_that_wrote_it(model: Path) -> None:
    import tensorrt_rtx as vendor

    result = built(model, "fp32")
    header = read_plan_header(result.engine.read_bytes())
    assert header is not None
    assert header.product == "TensorRT-RTX"
    assert ".".join(map(str, header.version)) == vendor.__version__ == result.details["plan_version"]


def test_an_engine_of_another_version_is_refused_in_our_words(model: Path) -> None:
    import tensorrt_rtx as vendor

    result = built(model, "fp32")
    plan = bytearray(result.engine.read_bytes())
    plan[24:28] = (1, 2, 0, 54)
    result.engine.write_bytes(plan)
    session = tensorrt_rtx.Session(result.engine, result.spec, tensorrt_rtx.Options())
    with (
        pytest.raises(TargetError, match=r"built with TensorRT-RTX 1.2.0.54, and the runtime here is ") as caught,
        session,
    ):
        pass
    assert str(caught.value).endswith(f"{vendor.__version__}; build it again here")


def test_an_engine_of_tensorrt_is_told_from_one_of_tensorrt_rtx(model: Path) -> None:
    result = built(model, "fp32")
    plan = b"ftrt" + result.engine.read_bytes()[4:]
    result.engine.write_bytes(plan)
    session = tensorrt_rtx.Session(result.engine, result.spec, tensorrt_rtx.Options())
    with pytest.raises(TargetError, match="an engine of TensorRT, and the runtime here is TensorRT-RTX"), session:
        pass


@pytest.mark.parametrize("validity", ["VALID", "SUBOPTIMAL"])
def test_an_engine_that_may_run_slower_is_told_and_recorded(
    validity: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    session = tensorrt_rtx.Session(tmp_path / "engine.plan", segmenter()[1], tensorrt_rtx.Options())
    answer = (vendor.EngineValidity.__members__[validity], 0)
    session._prepare(SimpleNamespace(get_engine_validity=lambda plan: answer), b"")
    assert session.runtime == {"engine_validity": validity.lower()}
    assert ["perhaps slower than it could" in one.getMessage() for one in caplog.records] == [True] * (
        validity == "SUBOPTIMAL"
    )


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
    with pytest.raises((TargetError, ArtifactError), match="TensorRT-RTX cannot parse it|not a readable ONNX file"):
        built(tmp_path / "float.onnx", "fp32")


@pytest.mark.parametrize(
    ("zero", "fits"), [(np.int8(0), True), (np.uint8(0), False), (np.int8(3), False), (np.uint8(128), False)]
)
def test_only_a_signed_zero_point_of_0_is_read_rightly(zero: np.generic, fits: bool) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], name="quantize")
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(np.asarray(zero), "zero")])
    model = helper.make_model(graph)
    if fits:
        nvidia_graph.check_zero_points(model, Path("m.onnx"))
    else:
        with pytest.raises(
            TargetError, match=r"m.onnx: node 'quantize': expected an int8 zero point of 0, got u?int8 \["
        ):
            nvidia_graph.check_zero_points(model, Path("m.onnx"))


def test_a_missing_zero_point_is_unsigned_in_onnx_and_refused() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], name="quantize")
    with pytest.raises(TargetError, match="got uint8"):
        nvidia_graph.check_zero_points(helper.make_model(helper.make_graph([node], "g", [], [])), Path("m.onnx"))


def test_weights_in_another_file_are_read_by_parser_and_builder(tmp_path: Path) -> None:
    net, spec = segmenter()
    path = tmp_path / "m.onnx"
    onnx.save(net, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert tensorrt_rtx.probe(path, tensorrt_rtx.Options()).refusals == ()
    (tmp_path / "engine").mkdir()
    for precision in ("fp32", "fp16"):
        request = CompileRequest(path, spec, precision, tmp_path / "engine", tensorrt_rtx.Options())
        assert tensorrt_rtx.build_engine(request).details["convolutions"] == 4

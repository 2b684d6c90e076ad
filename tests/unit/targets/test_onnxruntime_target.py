"""What only the ONNX Runtime target promises: one portable file, threads, providers, independent outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.board.sysinfo import usable_cores
from edgekd.errors import ArtifactError, ImageError, TargetError
from edgekd.targets.base import CompileRequest, CompileResult
from edgekd.targets.onnxruntime import providers as ort_providers
from edgekd.targets.onnxruntime import target as onnxruntime
from tests.small_nets import images, prepared, segmenter


@pytest.fixture
def fp32(tmp_path: Path) -> CompileResult:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "model.onnx")
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp32", tmp_path, onnxruntime.Options())
    return onnxruntime.build_engine(request)


def test_the_engine_is_the_model_byte_for_byte(fp32: CompileResult, tmp_path: Path) -> None:
    assert fp32.engine.read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_weights_kept_outside_the_model_are_packed_into_the_engine(tmp_path: Path) -> None:
    net, spec = segmenter()
    settings = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(net, tmp_path / "model.onnx", **settings)
    out = tmp_path / "out"
    out.mkdir()
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp32", out, onnxruntime.Options())
    engine = onnxruntime.build_engine(request).engine
    (tmp_path / "weights.bin").unlink()
    assert [path.name for path in out.iterdir()] == ["engine.onnx"]
    with onnxruntime.Session(engine, spec, onnxruntime.Options()) as session:
        assert np.isfinite(session.infer(prepared(spec, images(1)[0]))["logits"]).all()


def test_an_engine_that_does_not_fit_its_contract_is_not_kept_open(fp32: CompileResult) -> None:
    other = replace(fp32.spec, outputs=(replace(fp32.spec.outputs[0], name="other"),))
    session = onnxruntime.Session(fp32.engine, other, onnxruntime.Options())
    with pytest.raises(TargetError, match="expected output other"), session:
        pass
    assert session._session is None


def test_threads_default_to_the_usable_cores(fp32: CompileResult) -> None:
    assert fp32.details["threads"] == usable_cores()
    with onnxruntime.Session(fp32.engine, fp32.spec, onnxruntime.Options(intra_op_threads=1)) as session:
        assert session.runtime["threads"] == 1


def test_an_absent_provider_is_an_error_and_no_fallback(fp32: CompileResult) -> None:
    options = onnxruntime.Options(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    with (
        pytest.raises(TargetError, match=r"no provider CUDAExecutionProvider; available: .*CPUExecutionProvider"),
        onnxruntime.Session(fp32.engine, fp32.spec, options),
    ):
        pass


def session(built: CompileResult, options: onnxruntime.Options) -> onnxruntime.Session:
    return onnxruntime.Session(built.engine, built.spec, options)


def needs(provider: str) -> None:
    if provider not in (found := onnxruntime.import_onnxruntime().get_available_providers()):
        pytest.skip(f"this build of onnxruntime has {', '.join(found)} only")


def test_nodes_that_fall_back_to_the_cpu_unasked_are_an_error_that_names_them(fp32: CompileResult) -> None:
    needs("AzureExecutionProvider")  # takes no node of a network
    options = onnxruntime.Options(providers=("AzureExecutionProvider",))
    with (
        pytest.raises(TargetError, match=r"but \d+ of \d+ nodes would run on the CPU \(.*stem") as caught,
        session(fp32, options),
    ):
        pass
    assert "add CPUExecutionProvider to providers" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_provider_that_gets_no_node_at_all_is_an_error_also_beside_the_cpu(fp32: CompileResult) -> None:
    needs("AzureExecutionProvider")
    options = onnxruntime.Options(providers=("AzureExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(TargetError, match="ask for another provider"), session(fp32, options):
        pass


def test_a_probe_names_every_node_that_would_run_on_the_cpu(fp32: CompileResult) -> None:
    needs("AzureExecutionProvider")
    probe = onnxruntime.probe(fp32.engine, onnxruntime.Options(providers=("AzureExecutionProvider",)))
    assert {one.node for one in probe.refusals} >= {"stem", "head", "up"}
    assert {one.reason for one in probe.refusals} == {"runs on the CPUExecutionProvider"}
    assert onnxruntime.probe(fp32.engine, onnxruntime.Options()).refusals == ()


@pytest.mark.parametrize(
    ("providers", "nodes", "stray"),
    [
        (("A",), [("A", "x", "Conv"), ("A", "y", "Relu")], []),
        (("A",), [("A", "x", "Conv"), ("CPUExecutionProvider", "y", "Relu")], ["y"]),
        (("A", "CPUExecutionProvider"), [("A", "x", "Conv"), ("CPUExecutionProvider", "y", "Relu")], []),
        (("A", "CPUExecutionProvider"), [("CPUExecutionProvider", "y", "Relu")], ["y"]),
        (("A", "B", "CPUExecutionProvider"), [("B", "x", "Conv"), ("CPUExecutionProvider", "y", "Relu")], []),
        (("CPUExecutionProvider",), [], []),
    ],
)
def test_strays_are_nodes_on_the_cpu_unasked(providers: tuple[str, ...], nodes: list, stray: list[str]) -> None:
    assert [name for _, name, _ in ort_providers.strays(nodes, providers)] == stray


def test_float32_is_pinned_and_threads_are_the_sessions() -> None:
    given = {"CUDAExecutionProvider": {"device_id": "1"}, "OpenVINOExecutionProvider": {"device_type": "GPU"}}
    names = ("CUDAExecutionProvider", "OpenVINOExecutionProvider", "XnnpackExecutionProvider", "CPUExecutionProvider")
    assert ort_providers.with_defaults(names, given, 2) == [
        ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}),
        ("OpenVINOExecutionProvider", {"precision": "FP32", "device_type": "GPU"}),
        ("XnnpackExecutionProvider", {"intra_op_num_threads": "2"}),
        ("CPUExecutionProvider", {}),
    ]


def test_options_that_contradict_fp32_or_belong_to_no_provider_are_refused(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "model.onnx")
    for name, options, says in (
        ("CUDAExecutionProvider", {"use_tf32": "1"}, "precision fp32 contradicts CUDAExecutionProvider use_tf32=1"),
        (
            "QNNExecutionProvider",
            {"backend_path": "x"},
            "provider_options for QNNExecutionProvider, expected options of CPU",
        ),
    ):
        given = onnxruntime.Options(provider_options={name: options})
        with pytest.raises(TargetError, match=says):
            onnxruntime.build_engine(CompileRequest(tmp_path / "model.onnx", spec, "fp32", tmp_path, given))


def test_options_of_the_session_are_recorded(fp32: CompileResult) -> None:
    options = onnxruntime.Options(session_config={"session.intra_op.allow_spinning": "0"})
    with session(fp32, options) as opened:
        assert opened.runtime["session_options"]["session.intra_op.allow_spinning"] == "0"
        assert opened.runtime["session_options"]["execution_mode"] == "ORT_SEQUENTIAL"
        assert opened.runtime["nodes"] == {}


def openvino_session(built: CompileResult, *more: str, **given: str) -> onnxruntime.Session:
    needs("OpenVINOExecutionProvider")
    name = "OpenVINOExecutionProvider"
    return session(built, onnxruntime.Options(1, (name, *more), provider_options={name: given}))


def test_the_openvino_provider_runs_every_node_and_agrees_with_the_cpu(fp32: CompileResult) -> None:
    inputs = prepared(fp32.spec, images(1)[0])
    with openvino_session(fp32) as one, session(fp32, onnxruntime.Options(1)) as other:
        assert set(one.runtime["nodes"]) == {"OpenVINOExecutionProvider"}
        assert one.runtime["provider_options"]["OpenVINOExecutionProvider"] == {
            "precision": "FP32",
            "num_of_threads": "1",
        }
        assert np.allclose(one.infer(inputs)["logits"], other.infer(inputs)["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{"device_type": "GPU"}, {"presicion": "FP32"}])
def test_an_openvino_provider_that_cannot_start_does_not_become_the_cpu(fp32: CompileResult, given: dict) -> None:
    with pytest.raises(TargetError) as caught, openvino_session(fp32, "CPUExecutionProvider", **given):
        pass
    assert "could not start OpenVINOExecutionProvider" in str(caught.value) or "presicion" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_openvino_provider_leaves_to_the_cpu_is_refused_or_recorded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["a"], name="relu"),
        helper.make_node("Det", ["a"], ["b"], name="det"),  # not an operator of OpenVINO's provider
        helper.make_node("Neg", ["b"], ["logits"], name="neg"),
    ]
    _, spec = segmenter()
    spec = replace(
        spec,
        inputs=(replace(spec.inputs[0], shape=(1, 3, 8, 8)),),
        outputs=(replace(spec.outputs[0], shape=(1, 3)),),
    )
    image, logits = (
        helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in (spec.inputs[0], spec.outputs[0])
    )
    graph = helper.make_graph(nodes, "det", [image], [logits])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "det.onnx"
    )
    built = CompileResult(tmp_path / "det.onnx", spec)
    with pytest.raises(TargetError, match=r"2 of 3 nodes would run on the CPU \(.*Det det"), openvino_session(built):
        pass
    with openvino_session(built, "CPUExecutionProvider") as opened:
        assert opened.runtime["nodes"] == {"OpenVINOExecutionProvider": 1, "CPUExecutionProvider": 2}


def test_outputs_stay_valid_after_the_next_run(fp32: CompileResult) -> None:
    first, second = (prepared(fp32.spec, image) for image in images(2))
    with onnxruntime.Session(fp32.engine, fp32.spec, onnxruntime.Options()) as session:
        kept = session.infer(first)["logits"]
        before = kept.copy()
        session.infer(second)
    assert np.array_equal(kept, before)


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 16, 48), np.float32), np.zeros((1, 3, 32, 48), np.float64)])
def test_wrong_input_is_refused_in_one_line(fp32: CompileResult, wrong: np.ndarray) -> None:
    with onnxruntime.Session(fp32.engine, fp32.spec, onnxruntime.Options()) as session:
        with pytest.raises(ImageError, match="input refused") as caught:
            session.infer({"image": wrong})
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    request = CompileRequest(tmp_path / "model.onnx", segmenter()[1], "fp32", tmp_path, onnxruntime.Options())
    with pytest.raises(ArtifactError, match="not a readable ONNX file"):
        onnxruntime.build_engine(request)


def test_importing_onnxruntime_writes_nothing_into_the_home_folder(fp32: CompileResult, tmp_path: Path) -> None:
    code = "from edgekd.targets.onnxruntime import target as t; r = t.import_onnxruntime(); r.InferenceSession('engine.onnx')"
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120, cwd=tmp_path)
    assert list(home.rglob("*")) == []


def test_a_run_that_fails_is_not_the_input_s_fault(fp32: CompileResult) -> None:
    def fails(*_: object) -> list[np.ndarray]:
        raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory")

    with onnxruntime.Session(fp32.engine, fp32.spec, onnxruntime.Options()) as session:
        session._run = fails
        with pytest.raises(TargetError, match="engine.onnx: onnxruntime fails: .*Failed to allocate memory"):
            session.infer(prepared(fp32.spec, images(1)[0]))

"""What only the OpenVINO target promises: pinned precision, integer layers, devices, blobs, caching, input memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import is_hybrid
from edgekd.errors import ImageError, TargetError
from edgekd.quantize.schemes import nncf
from edgekd.targets.base import CompileRequest, CompileResult
from edgekd.targets.openvino import runtime
from edgekd.targets.openvino import target as openvino
from tests.small_nets import images, prepared, segmenter


@pytest.fixture
def fp32(tmp_path: Path) -> CompileResult:
    return build(tmp_path, openvino.Options())


def build(folder: Path, options: openvino.Options, precision: str = "fp32") -> CompileResult:
    net, spec = segmenter()
    model = folder / "model.onnx"
    onnx.save(net, model)
    if precision == "int8":
        model = nncf.quantize(model, spec, calibration(spec), folder, nncf.Options()).model
    return openvino.build_engine(CompileRequest(model, spec, precision, folder, options))


def calibration(spec: ModelSpec) -> list[dict[str, np.ndarray]]:
    return [prepared(spec, image) for image in images(4)]


def test_fp32_runs_every_layer_in_f32(fp32: CompileResult) -> None:
    assert fp32.details["inference_precision"] == "f32"
    assert fp32.details["execution_mode_hint"] == "ACCURACY"
    assert set(fp32.details["layers"]) == {"f32"}


def test_int8_runs_layers_in_integers_and_the_others_in_f32(tmp_path: Path) -> None:
    layers = build(tmp_path, openvino.Options(), "int8").details["layers"]
    assert layers.get("u8", 0) + layers.get("i8", 0) >= 4
    assert set(layers) <= {"u8", "i8", "f32"}


def test_fp32_with_another_inference_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="precision fp32 contradicts inference_precision bf16"):
        build(tmp_path, openvino.Options(inference_precision="bf16"))


def test_threads_and_streams_are_what_was_asked(fp32: CompileResult) -> None:
    with openvino.Session(fp32.engine, fp32.spec, openvino.Options(num_threads=1)) as session:
        assert session.runtime["threads"] == 1
        assert session.runtime["num_streams"] == 1


def test_an_unknown_device_is_refused_in_one_line(fp32: CompileResult) -> None:
    options = openvino.Options(device="TOASTER")
    with pytest.raises(TargetError, match="TOASTER") as caught, openvino.Session(fp32.engine, fp32.spec, options):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_here_is_refused_and_nothing_falls_back(device: str, tmp_path: Path) -> None:
    if any(one.startswith(device) for one in runtime.shared_core().available_devices):
        pytest.skip(f"{device} is here")
    with pytest.raises(TargetError, match=rf"no device {device} here.*available: .*CPU.*does not fall back") as caught:
        build(tmp_path, openvino.Options(device=device), "fp16")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("engine.blob"))
    with pytest.raises(TargetError, match=f"no device {device} here"):
        openvino.probe(tmp_path / "model.onnx", openvino.Options(device=device))


@pytest.mark.parametrize("device", ["AUTO", "AUTO:GPU,CPU", "MULTI:GPU,CPU", "HETERO:NPU,CPU"])
def test_a_device_that_chooses_by_itself_is_refused(device: str, fp32: CompileResult) -> None:
    options = openvino.Options(device=device)
    with (
        pytest.raises(TargetError, match="chooses by itself"),
        openvino.Session(fp32.engine, fp32.spec, options),
    ):
        pass


@pytest.mark.parametrize(
    ("device", "precision", "asked", "pinned"),
    [
        ("CPU", "fp32", None, "f32"),
        ("CPU", "fp16", None, "f16"),
        ("CPU", "int8", None, "f32"),
        ("CPU", "int8", "bf16", "bf16"),
        ("GPU.1", "fp32", None, "f32"),
        ("GPU", "fp16", "f16", "f16"),
        ("GPU", "int8", None, "f16"),
        ("GPU", "int8", "f32", "f32"),
        ("NPU", "fp16", None, "f16"),
        ("NPU", "int8", None, "f16"),
    ],
)
def test_every_device_has_its_precision_pinned(device: str, precision: str, asked: str | None, pinned: str) -> None:
    assert runtime.precision_of(device, precision, asked) == pinned


@pytest.mark.parametrize(
    ("device", "precision", "asked", "says"),
    [
        ("NPU", "fp32", None, "the NPU computes in fp16, int8, mixed, got precision fp32; ask for fp16"),
        ("NPU", "int8", "f32", "contradicts inference_precision f32; expected f16 on NPU"),
        ("GPU", "int8", "bf16", "contradicts inference_precision bf16; expected f16 or f32 on GPU"),
        ("CPU", "fp16", "f32", "contradicts inference_precision f32; expected f16 on CPU"),
    ],
)
def test_a_precision_that_a_device_lacks_is_refused(device: str, precision: str, asked: str | None, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        runtime.precision_of(device, precision, asked)


def test_a_cpu_without_float16_refuses_fp16_and_does_not_run_it_in_another_precision(tmp_path: Path) -> None:
    if "FP16" in runtime.shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert build(tmp_path, openvino.Options(), "fp16").details["inference_precision"] == "f16"
        return
    with pytest.raises(TargetError, match="expected CPU to run in f16, got (f32|bf16)"):
        build(tmp_path, openvino.Options(), "fp16")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_blob_gives_what_the_ir_gives(precision: str, tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    (tmp_path / "blob").mkdir()
    ir = build(tmp_path / "ir", openvino.Options(), precision)
    blob = build(tmp_path / "blob", openvino.Options(format="blob"), precision)
    assert [blob.engine.name, blob.details["format"]] == ["engine.blob", "blob"]
    assert blob.details["layers"] == ir.details["layers"]
    assert blob.details["inference_precision"] == "f32"
    image = prepared(ir.spec, images(1)[0])
    with (
        openvino.Session(ir.engine, ir.spec, openvino.Options()) as one,
        openvino.Session(blob.engine, blob.spec, openvino.Options(num_threads=1)) as other,
    ):
        assert other.runtime["threads"] == 1
        assert np.allclose(one.infer(image)["logits"], other.infer(image)["logits"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("openvino", "2025.1.0", r"built for openvino 2025\.1\.0, here 20"),
        ("device_name", "Another CPU", "built for device name Another CPU, here "),
        ("device", "GPU.0", "built for device GPU.0, here CPU"),
        ("device_architecture", "3720", "built for device architecture 3720, here "),  # of an NPU; all have one name
    ],
)
def test_a_blob_of_another_device_or_version_is_refused(key: str, value: str, says: str, tmp_path: Path) -> None:
    built = build(tmp_path, openvino.Options(format="blob"))
    file = tmp_path / "engine.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with (
        pytest.raises(TargetError, match=says) as caught,
        openvino.Session(built.engine, built.spec, openvino.Options()),
    ):
        pass
    assert "a blob runs only where it was compiled" in str(caught.value)


def test_a_damaged_or_missing_blob_and_one_of_unknown_origin_are_refused_in_one_line(tmp_path: Path) -> None:
    built = build(tmp_path, openvino.Options(format="blob"))
    whole = built.engine.read_bytes()
    for damage in (whole[:200], whole[: len(whole) // 2], b"", b"this is not an engine"):
        built.engine.write_bytes(damage)
        with pytest.raises(TargetError, match="cannot import it") as caught, session_of(built):
            pass
        assert "\n" not in str(caught.value)
    (tmp_path / "engine.json").unlink()
    with pytest.raises(TargetError, match="expected engine.json beside it"), session_of(built):
        pass
    built.engine.unlink()
    with pytest.raises(TargetError, match="no such engine"), session_of(built):
        pass


def test_an_engine_that_does_not_fit_its_contract_is_not_kept_open(fp32: CompileResult) -> None:
    other = replace(fp32.spec, outputs=(replace(fp32.spec.outputs[0], name="other"),))
    session = openvino.Session(fp32.engine, other, openvino.Options())
    with pytest.raises(TargetError, match="expected output other"), session:
        pass
    assert session._compiled is None


def session_of(built: CompileResult) -> openvino.Session:
    return openvino.Session(built.engine, built.spec, openvino.Options())


def test_the_second_load_comes_from_the_cache(fp32: CompileResult, tmp_path: Path) -> None:
    options = openvino.Options(cache_dir=str(tmp_path / "cache"))
    image = prepared(fp32.spec, images(1)[0])
    found = []
    for _ in range(2):
        with openvino.Session(fp32.engine, fp32.spec, options) as session:
            found.append((session.runtime["loaded_from_cache"], session.infer(image)["logits"].copy()))
            assert session.runtime["load_ms"] > 0
    assert [is_cached for is_cached, _ in found] == [False, True]
    assert np.allclose(found[0][1], found[1][1], rtol=0, atol=1e-6)
    assert list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(fp32: CompileResult) -> None:
    options = openvino.Options(cache_dir=str(fp32.engine / "cache"))  # below a file
    with (
        pytest.raises(TargetError, match="create directory") as caught,
        openvino.Session(fp32.engine, fp32.spec, options),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_model_without_static_shapes_is_refused(tmp_path: Path) -> None:
    net, spec = segmenter()
    net.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(net, tmp_path / "model.onnx")
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp32", tmp_path, openvino.Options())
    with pytest.raises(TargetError, match="expected static shapes"):
        openvino.build_engine(request)


def test_an_ir_without_a_mark_runs_in_f32_and_a_marked_one_as_marked(fp32: CompileResult) -> None:
    model = runtime.read_model(fp32.engine)
    assert runtime.marked(model) == "f32"
    text = fp32.engine.read_text()
    assert runtime.marked(runtime.read_model(fp32.engine)) == "f32"
    fp32.engine.write_text(text[: text.index("<rt_info>")] + "</net>")
    assert not runtime.read_model(fp32.engine).has_rt_info(["edgekd", "inference_precision"])
    with session_of(fp32) as session:
        assert session.runtime["inference_precision"] == "f32"


def test_missing_weights_are_refused(fp32: CompileResult) -> None:
    fp32.engine.with_suffix(".bin").unlink()
    with pytest.raises(TargetError, match="bin file"), openvino.Session(fp32.engine, fp32.spec, openvino.Options()):
        pass


def test_read_only_input_is_accepted_and_left_alone(fp32: CompileResult) -> None:
    array = prepared(fp32.spec, images(1)[0])["image"]
    with openvino.Session(fp32.engine, fp32.spec, openvino.Options()) as session:
        expected = session.infer({"image": array.copy()})["logits"].copy()
        array.flags.writeable = False
        assert np.array_equal(session.infer({"image": array})["logits"], expected)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 3, 16, 48), np.float32),
        np.zeros((1, 3, 32, 48), np.float64),
        np.zeros((1, 3, 48, 32), np.float32).transpose(0, 1, 3, 2),
    ],
    ids=["shape", "dtype", "not contiguous"],
)
def test_wrong_input_is_refused_in_one_line(fp32: CompileResult, wrong: np.ndarray) -> None:
    with openvino.Session(fp32.engine, fp32.spec, openvino.Options()) as session:
        with pytest.raises(ImageError, match="input refused") as caught:
            session.infer({"image": wrong})
        assert "\n" not in str(caught.value)


def test_importing_openvino_writes_nothing_into_the_home_folder(tmp_path: Path) -> None:
    code = "from edgekd.targets.openvino import target as openvino; openvino.runtime_version()"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []


_SIGNAL_AFTER_TWO_SESSIONS = """
import signal, sys
from pathlib import Path
from edgekd.targets.openvino import target as openvino
from tests.small_nets import segmenter

sessions = [openvino.Session(Path(sys.argv[1]), segmenter()[1], openvino.Options()) for _ in range(2)]
for session in sessions:
    session.__enter__()
for session in sessions:  # the one opened first closes first
    session.__exit__(None, None, None)
del session, sessions
signal.signal(signal.SIGTERM, lambda *_: print("told to stop"))
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_are_handled_after_sessions_have_closed_in_any_order(fp32: CompileResult) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", _SIGNAL_AFTER_TWO_SESSIONS, str(fp32.engine)], env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "told to stop\n"), ended.stderr


def test_a_processor_with_two_kinds_of_cores_is_left_to_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = runtime.shared_core()
    monkeypatch.setattr(openvino, "environment", lambda: {"cpu_quota": None})
    monkeypatch.setattr(openvino, "is_hybrid", lambda: False)
    assert openvino._settings(core, openvino.Options(), "f32")["INFERENCE_NUM_THREADS"] >= 1
    for kind in ("cpu_core", "cpu_atom"):
        (tmp_path / "sys/bus/event_source/devices" / kind).mkdir(parents=True)
    assert is_hybrid(str(tmp_path))
    monkeypatch.setattr(openvino, "is_hybrid", lambda: is_hybrid(str(tmp_path)))
    assert "INFERENCE_NUM_THREADS" not in openvino._settings(core, openvino.Options(), "f32")
    assert openvino._settings(core, openvino.Options(num_threads=3), "f32")["INFERENCE_NUM_THREADS"] == 3
    monkeypatch.setattr(openvino, "environment", lambda: {"cpu_quota": 1.0})
    assert "INFERENCE_NUM_THREADS" in openvino._settings(core, openvino.Options(), "f32")


def test_a_device_that_is_lost_is_not_the_input_s_fault(fp32: CompileResult) -> None:
    with session_of(fp32) as session:
        session._request = SimpleNamespace(set_input_tensor=lambda *_: None, infer=lost)
        with pytest.raises(TargetError, match="CPU fails: device is lost"):
            session.infer(prepared(fp32.spec, images(1)[0]))


def lost(**_: object) -> None:
    raise RuntimeError("device is lost")

"""What only the OpenVINO target promises: pinned precision, integer layers, threads, input memory, no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.board.specs import ModelSpec
from edgekd.errors import ImageError, TargetError
from edgekd.quantize.schemes import nncf
from edgekd.targets import openvino
from edgekd.targets.base import CompileRequest, CompileResult
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
    code = "from edgekd.targets import openvino; openvino.runtime_version()"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []

"""What only the ONNX Runtime target promises: one portable file, threads, providers, independent outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.board.sysinfo import usable_cores
from edgekd.errors import ImageError, TargetError
from edgekd.targets import onnxruntime
from edgekd.targets.base import CompileRequest, CompileResult
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
    with pytest.raises(TargetError, match="not a readable ONNX file"):
        onnxruntime.build_engine(request)


def test_importing_onnxruntime_writes_nothing_into_the_home_folder(fp32: CompileResult, tmp_path: Path) -> None:
    code = "from edgekd.targets import onnxruntime as t; r = t.import_onnxruntime(); r.InferenceSession('engine.onnx')"
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120, cwd=tmp_path)
    assert list(home.rglob("*")) == []

"""An engine is held to its ONNX graph: figures by hand, limits per precision, and the operator that differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekd.board.detection import Detections
from edgekd.board.job import Job, Json, Progress
from edgekd.board.parity import SAME, Comparison, Parity, check_finite, numeric_outputs, unmatched
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.compile import parity
from edgekd.compile.parity import why_apart
from edgekd.compile.stage import run
from edgekd.core.recipe import EngineParity
from edgekd.errors import GateError
from edgekd.executors import boards
from edgekd.executors.base import no_progress
from edgekd.executors.local import Local
from edgekd.quantize.schemes import qdq
from tests.compile_job import CLASSES, SIZE, job, network
from tests.small_nets import images, prepared

RESIZE = helper.make_node("Resize", ["x", "", "", "size"], ["y"], name="shrink", mode="linear", antialias=1)
FP32 = {"target": "openvino", "precision": "fp32"}


def test_errors_are_relative_to_spread_and_deviation_of_the_reference() -> None:
    comparison = Comparison()
    comparison.add_numbers({"a": np.array([0.0, 4.0])}, {"a": np.array([0.0, 4.2])}, ["a"])
    comparison.add_numbers({"a": np.array([8.0, 4.0])}, {"a": np.array([8.0, 4.0])}, ["a"])
    found = comparison.result()
    assert found.images == 2
    assert found.max_error == pytest.approx(0.2 / 8)  # values 0 to 8
    assert found.rms_error == pytest.approx(np.sqrt(0.04 / 4) / np.sqrt(8))  # mean 4, squares of deviation 16 0 16 0
    assert comparison.largest_relative == pytest.approx(0.2 / 8)


def test_an_output_of_almost_one_value_has_a_spread_of_one_per_cent_of_it() -> None:
    comparison = Comparison()
    comparison.add_numbers({"a": np.full(3, -4.0)}, {"a": np.full(3, -4.001)}, ["a"])
    assert comparison.result().max_error == pytest.approx(0.001 / 0.04)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_infinite_error(wrong: float) -> None:
    comparison = Comparison()
    comparison.add_numbers({"a": np.array([0.0, 1.0])}, {"a": np.array([0.0, wrong])}, ["a"])
    assert comparison.result().max_error == np.inf
    same = Comparison()
    same.add_numbers({"a": np.array([0.0, 1.0, -np.inf])}, {"a": np.array([0.0, 1.0, -np.inf])}, ["a"])
    assert same.result().max_error == 0
    with pytest.raises(GateError, match=r"^here: output 'a' of the engine holds values that are not finite; look"):
        check_finite("here: ", "engine", {"a": np.array([wrong])}, "look")


def test_pixels_are_counted_and_labels_are_no_numbers() -> None:
    outputs = (
        TensorSpec("logits", "float32", (1, 2, 1, 2), "logits"),
        TensorSpec("found_boxes", "float32", (1, 1, 4), "found_boxes"),
        TensorSpec("class_map", "uint8", (1, 1, 2), "class_map"),
    )
    image = TensorSpec("image", "float32", (1, 3, 1, 2), "image")
    spec = ModelSpec("semantic", ("a", "b"), 255, (image,), outputs, Preprocess((1, 2)))
    assert numeric_outputs(spec) == ["logits"]
    comparison = Comparison()
    one, other = np.array([[[[1, 1]], [[0, 0]]]], np.float32), np.array([[[[1, 0]], [[0, 1]]]], np.float32)
    comparison.add_results({"logits": one}, spec, {"logits": other}, spec)
    assert (comparison.result().different, comparison.result().compared) == (0.5, 2)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", (2, 2)), ("fp16", (2, 2)), ("int8", (0, 2))])
def test_a_detection_of_int8_may_move_a_little(precision: str, expected: tuple[int, int]) -> None:
    label = np.array([1])
    one = Detections(np.array([[0, 0, 10, 10]], np.float32), np.array([0.5], np.float32), label)
    other = Detections(np.array([[0, 0, 10, 8]], np.float32), np.array([0.45], np.float32), label)  # IoU 0.8
    assert unmatched(one, other, SAME[precision]) == expected


@pytest.mark.parametrize(
    ("precision", "parity", "reason"),
    [
        ("fp32", Parity(4, 9e-5, 1e-5, 1e-3, 100), ""),
        ("fp32", Parity(4, 2e-4, 1e-5, 0, 100), "an output differs by 2.0e-04 of its spread, limit parity.fp32_error = 0.0001"),
        ("fp32", Parity(4, None, None, 0.02, 100), "2.0e-02 of the results differ, limit parity.fp32_different = 0.001"),
        ("int8", Parity(4, 0.9, 0.3, 0.1, 100), ""),
        ("int8", Parity(4, 0.9, 0.6, 0.1, 100), "RMS error 6.0e-01 of an output's standard deviation, limit parity.int8_error = 0.5"),
        ("board", Parity(4, 0.9, 0.04, 0.01, 100), ""),
        ("board", Parity(4, 0.9, 0.06, 0, 9), "RMS error 6.0e-02 of an output's standard deviation, limit parity.board_error = 0.05"),
        ("board", Parity(4, None, None, 0.03, 100), "3.0e-02 of the results differ, limit parity.board_different = 0.02"),
    ],
)  # fmt: skip
def test_a_limit_is_named_with_the_figure(precision: str, parity: Parity, reason: str) -> None:
    assert why_apart(parity, precision, EngineParity()) == reason


def test_a_float_engine_agrees_with_its_graph(tmp_path: Path) -> None:
    model, spec = network([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    (parity,) = run(job(tmp_path, model, spec, FP32)).details["parity"].items()
    name, found = parity
    assert name == "float"
    assert (found["images"], found["compared"], found["different"]) == (4, 4 * SIZE[0] * SIZE[1], 0)
    assert found["max_error"] < 1e-5


def test_an_int8_engine_is_compared_with_both_of_its_graphs(tmp_path: Path) -> None:
    model, spec = network([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    (tmp_path / "quantize").mkdir()
    onnx.save(model, tmp_path / "float.onnx")
    calibration = [prepared(spec, image) for image in images(4)]
    made = qdq.quantize(tmp_path / "float.onnx", spec, calibration, tmp_path / "quantize", qdq.Options())
    engine = {"target": "onnxruntime", "precision": "int8"}
    parity = run(job(tmp_path, model, spec, engine, made.model)).details["parity"]
    assert list(parity) == ["float", "quantized"]
    assert parity["quantized"]["rms_error"] <= parity["float"]["rms_error"] < 0.2
    assert spec.classes == CLASSES


def test_an_int8_engine_that_agrees_with_its_quantized_graph_alone_is_said_to_lose_by_its_quantization(
    tmp_path: Path,
) -> None:
    model, spec = network([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    (tmp_path / "quantize").mkdir()
    onnx.save(model, tmp_path / "float.onnx")
    dark = [prepared(spec, image // 16) for image in images(4)]  # the ranges cut most values of the images compared
    made = qdq.quantize(tmp_path / "float.onnx", spec, dark, tmp_path / "quantize", qdq.Options())
    with pytest.raises(GateError) as caught:
        run(job(tmp_path, model, spec, {"target": "onnxruntime", "precision": "int8"}, made.model))
    text = str(caught.value)
    assert text.startswith("onnxruntime-int8 loses too much by quantization: against its float ONNX graph, RMS error ")
    assert "adjust the graph (quantize.adjust)" in text


def test_the_operator_that_differs_is_named_and_a_limit_of_the_recipe_lets_it_pass(tmp_path: Path) -> None:
    model, spec = network([RESIZE], size=np.array([1, 4, 12, 20]))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(GateError) as caught:
        run(job(tmp_path / "a", model, spec, FP32))
    text = str(caught.value)
    assert text.startswith("openvino-fp32 computes something else than its float ONNX graph: an output differs by ")
    assert (
        "limit parity.fp32_error = 0.0001, on 4 training images; the first operator that differs is Resize 'shrink'; "
        in text
    )
    loose: dict[str, Any] = {"parity": {"images": 2, "fp32_error": 1.0, "fp32_different": 1.0}}
    found = run(job(tmp_path / "b", model, spec, FP32, **loose)).details["parity"]["float"]
    assert found["images"] == 2
    assert found["max_error"] > 0.05


class Skewed(Local):
    """A board whose arithmetic makes every output larger by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        value = super().run_job(job, files, out_dir, log, progress)
        for name in value.get("outputs", ()):
            with np.load(out_dir / name) as archive:
                outputs = {key: archive[key] * np.float32(self.factor) for key in archive.files}
            np.savez(out_dir / name, **outputs)
        return value


ON_BOARD = {"target": "onnxruntime", "precision": "fp32", "board": "pi"}
LOOSE: dict[str, Any] = {"fp32_error": 1.0, "fp32_different": 1.0}


def board_of(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (boards, parity):
        real = module.executor_of
        monkeypatch.setattr(
            module, "executor_of", lambda name, real=real: Skewed(factor) if name == "pi" else real(name)
        )


def test_an_engine_is_compared_with_itself_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_of(1.01, monkeypatch)
    model, spec = network([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    found = run(job(tmp_path, model, spec, ON_BOARD, parity=LOOSE)).details["parity"]
    assert list(found) == ["float", "here"]
    # 1 % of each value: RMS of the values over their standard deviation is at least 1.
    assert 0.01 <= found["here"]["rms_error"] < 0.05
    assert found["here"]["different"] == 0  # a factor moves no argmax


def test_a_board_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board_of(1.5, monkeypatch)
    model, spec = network([helper.make_node("Relu", ["x"], ["y"], name="relu")])
    text = (
        r"onnxruntime-fp32@pi computes something else on board pi than on this machine: RMS error .*parity.board_error"
    )
    with pytest.raises(GateError, match=text):
        run(job(tmp_path, model, spec, ON_BOARD, parity=LOOSE))

"""Section `qat` through the pipeline: both students, their engines and the report; for each task, and after a kill."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from edgekd.core.artifact import open_artifact
from tests.command import edgekd
from tests.integration.conftest import TINY

FEW = {"steps": 3, "batch_size": 4, "checkpoint_every": 1, "lr": 0.001}
QAT: dict[str, Any] = {
    **TINY,
    "name": "qat",
    "check": "off",
    "data": {**TINY["data"], "options": {"height": 64, "width": 96, "train": 16, "val": 4}},
    "teacher": {**TINY["teacher"], "train": FEW},
    "student": {**TINY["student"], "train": FEW},
    "distill": {"baseline": False},
    "qat": {"train": {**FEW, "ema": 0.5}},
    "quantize": {"images": 4},
    "engines": [{"target": "onnxruntime", "precision": "int8"}, {"target": "openvino", "precision": "int8"}],
}
OBJECTS = {
    **QAT,
    "export": {"detections_tolerance": 0.05},
    "engines": QAT["engines"][:1],
    **{name: {"family": "edgedet", "variant": "n", "train": FEW} for name in ("teacher", "student")},
}


def run(folder: Path, recipe: dict[str, Any], *options: str) -> Path:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = edgekd("run", "recipe.yaml", "--out", "run", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe and its run, up to the scores of all engines."""
    made = tmp_path_factory.mktemp("qat")
    run(made, QAT, "--until", "evaluate")
    return made


@pytest.mark.slow
def test_both_students_train_the_same_steps_and_get_engines_of_their_own(folder: Path) -> None:
    qat, control = (open_artifact(folder / "run" / name) for name in ("qat", "control"))
    for student in (qat, control):
        training = student.details["training"]
        assert (training["steps"], training["precision"], student.details["source"]) == (3, "32-true", "distilled")
        assert list(student.details["methods"]) == ["dist", "bckd"]
    report = json.loads((folder / "run/report.json").read_text())
    rows = {row["id"]: row for row in report["rows"]}
    for target in ("onnxruntime", "openvino"):
        for student in ("control", "qat"):
            assert rows[f"{target}-int8-{student}"]["status"] == "measured"
        assert rows[f"{target}-int8-qat"]["gain"]["against"] == f"{target}-int8-control"
    assert {"control", "qat"} <= set(report["training"])


@pytest.mark.slow
def test_the_weights_lie_on_the_grid_and_qdq_gets_the_learned_scales(folder: Path) -> None:
    """A weight over its scale is an integer; qdq, which QAT imitated, has taken every scale."""
    quantized = open_artifact(folder / "run/quantize/qdq-ptq-qat").details["quantizer"]
    assert quantized["ranges"]["imported"] > 0
    assert quantized["ranges"]["not_taken"] == []
    assert "ranges" not in open_artifact(folder / "run/quantize/nncf-ptq-qat").details["quantizer"]
    before, after = (load_file(folder / "run" / name / "weights.safetensors") for name in ("distilled", "qat"))
    assert {name: value.shape for name, value in before.items()} == {name: v.shape for name, v in after.items()}
    norms = [name for name in after if name.endswith("running_var")]
    assert norms
    assert all(np.array_equal(before[name], after[name]) for name in norms)  # frozen statistics
    control = load_file(folder / "run/control/weights.safetensors")
    assert all(np.array_equal(before[name], control[name]) for name in norms)
    assert any(not np.array_equal(control[name], after[name]) for name in after)


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "killed"
    shutil.copytree(folder, own)
    shutil.rmtree(own / "run/qat")
    command = [sys.executable, "-m", "edgekd.cli.main", "run", "recipe.yaml", "--out", "run", "--until", "qat"]
    child = subprocess.Popen(command, cwd=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and not list(own.glob("run/.work/qat-*/_scratch/resume.ckpt")):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = edgekd("run", "recipe.yaml", "--out", "run", "--until", "qat", cwd=own)
    assert again.returncode == 0, again.stderr
    for name in ("weights.safetensors", "scales.json"):
        assert (own / "run/qat" / name).read_bytes() == (folder / "run/qat" / name).read_bytes()


@pytest.mark.slow
def test_the_section_makes_nothing_again_that_was_there_before(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "plain"
    own.mkdir()
    run(own, {key: value for key, value in QAT.items() if key != "qat"}, "--until", "engine/onnxruntime-int8")
    kept = {path: path.stat().st_mtime_ns for path in own.glob("run/**/manifest.json")}
    assert len(kept) > 5
    run(own, QAT, "--until", "engine/onnxruntime-int8-qat,engine/onnxruntime-int8")
    assert {path: path.stat().st_mtime_ns for path in kept if "plan" not in path.parts} == {
        path: time for path, time in kept.items() if "plan" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "instance"])
def test_objects_train_with_quantizers_too(task: str, tmp_path: Path) -> None:
    out = run(tmp_path, {**OBJECTS, "task": task}, "--until", "evaluate")
    details = open_artifact(out / "qat").details
    assert list(details["methods"]) == ["ld", "bckd"]
    assert details["quantized_operators"] > 10
    scored = open_artifact(out / "evaluate/onnxruntime-int8-qat").details["metrics"]
    assert scored


# Half of all activations lie outside of such ranges: the engine loses what the student learned.
CLIPPED = {"calibration": "percentile", "percentile": 50.1}


@pytest.mark.slow
@pytest.mark.parametrize(("max_drop", "states"), [(0.99, ["held", "held"]), (0.01, ["missed", "held"])])
def test_over_budget_trains_where_one_target_misses_it(
    folder: Path, tmp_path: Path, max_drop: float, states: list[str]
) -> None:
    """A budget of 99 points holds whatever the engines do; of one point, ONNX Runtime's clipped engine loses more."""
    own = tmp_path / "budget"
    shutil.copytree(folder, own)
    budget = {
        **QAT,
        "qat": {**QAT["qat"], "when": "over_budget"},
        "quantize": {"images": 4, "budget": {"max_drop": max_drop}, "options": {"qdq": CLIPPED}},
        "parity": {"int8_error": 99, "int8_different": 1},  # it would refuse the engine
    }
    out = run(own, budget, "--until", "evaluate/onnxruntime-int8-qat")
    found, qat = open_artifact(out / "budget").details, open_artifact(out / "qat").details
    assert [one["state"] for one in found["targets"]] == states
    start, trained = (load_file(out / name / "weights.safetensors") for name in ("distilled", "qat"))
    is_same = all(np.array_equal(start[name], trained[name]) for name in start)
    training = json.loads((out / "report.json").read_text())["training"]["qat"]
    assert found["text"] in training["budget"]
    if "missed" in states:
        assert (qat["training"]["steps"], training["steps"], is_same) == (3, 3, False)
        assert "onnxruntime misses the budget by" in found["text"]
    else:
        assert (qat["training"], training.get("steps"), is_same) == ({}, None, True)
        assert qat["why_not_trained"] == found["text"]

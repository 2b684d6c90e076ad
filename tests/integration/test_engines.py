"""Several engines of one student: side by side under their ids, and an engine that fails beside others that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import edgekd
from edgekd.core.artifact import StageResult, open_artifact
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import Stage, StageJob
from edgekd.core.workspace import Workspace
from edgekd.models.build import build_model
from edgekd.models.families.edgeseg import Options
from edgekd.models.weights import save_state
from edgekd.pipeline import StageFailure, run_stages
from edgekd.planning import plan
from edgekd.study.results import read_study
from tests.command import edgekd as run_edgekd
from tests.integration.conftest import TINY
from tests.unit.executors.test_builder import SPEC as ATTENTION
from tests.unit.executors.test_builder import attention

CLASSES = 9  # of the rendered scenes
FP32 = {"target": "openvino", "precision": "fp32"}
INT8 = {"target": "openvino", "precision": "int8"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weight file of a student that is deployed as it is."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_state(build_model("edgeseg", "n", "semantic", CLASSES, Options()), path)
    return path


def recipe(folder: Path, weights: Path, engines: list[dict[str, Any]], **sections: Any) -> Path:
    """Write a recipe that deploys the student without training."""
    student = {"family": "edgeseg", "variant": "n", "checkpoint": str(weights)}
    changes = {"student": student, "distill": {"methods": {}}, "engines": engines, **sections}
    path = folder / "engines.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in edgekd.load_report(run)["rows"] if row["stage"] == "engine"}


def test_engines_of_one_target_and_precision_are_built_scored_and_timed_under_their_ids(
    tmp_path: Path, weights: Path
) -> None:
    engines = [
        FP32,
        {**FP32, "id": "one-thread", "options": {"num_threads": 1}},
        INT8,
        {**INT8, "id": "float-head", "variant": "float-head"},
    ]
    quantize = {"images": 8, "variants": {"float-head": {"images": 4, "options": {"nncf": {"float_head": True}}}}}
    ids = ["openvino-fp32", "one-thread", "openvino-int8", "float-head"]
    until = ",".join(["bench", *(f"evaluate/{name}" for name in ids)])
    edgekd.run(recipe(tmp_path, weights, engines, quantize=quantize), tmp_path / "run", until=until)
    rows = rows_of(tmp_path / "run")
    assert list(rows) == ids
    for name, row in rows.items():
        assert (row["status"], row["board"]) == ("measured", "local")
        assert row["metrics"]["miou"] >= 0
        assert row["latency_ms"]["n"] >= 50
        assert open_artifact(tmp_path / "run/engine" / name).kind == "engine"
    assert rows["one-thread"]["runtime"]["threads"] == 1
    assert rows["openvino-int8"]["sha256"] != rows["float-head"]["sha256"]
    counts = {name: len(open_artifact(tmp_path / f"run/quantize/nncf-{name}").details["calibration"]["images"])
              for name in ("ptq", "float-head")}  # fmt: skip
    assert counts == {"ptq": 8, "float-head": 4}
    page = (tmp_path / "run/report.html").read_text()
    assert all(name in page for name in ids)


def test_an_engine_that_fails_fails_its_row_and_the_others_are_reported(tmp_path: Path, weights: Path) -> None:
    refused = {"target": "onnxruntime", "precision": "fp32", "options": {"providers": ["AzureExecutionProvider"]}}
    path = recipe(tmp_path, weights, [refused, FP32], check="warn")
    until = "bench,evaluate/onnxruntime-fp32,evaluate/openvino-fp32"
    done = run_edgekd("run", str(path), "--out", str(tmp_path / "run"), "--until", until)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("edgekd: engine/onnxruntime-fp32 failed: ")]
    assert len(failed) == 1
    rows = rows_of(tmp_path / "run")
    assert rows["onnxruntime-fp32"]["status"] == "failed"
    assert rows["onnxruntime-fp32"]["reason"] in failed[0]
    assert "latency_ms" not in rows["onnxruntime-fp32"]
    assert rows["openvino-fp32"]["status"] == "measured"
    assert rows["openvino-fp32"]["latency_ms"]["n"] >= 50
    assert "openvino-fp32" in done.stdout


def export_attention(job: StageJob) -> StageResult:
    """Stand for the export of a network whose graph crashes the builder of TensorRT-RTX."""
    attention(job.out_dir)
    return StageResult(ATTENTION, {"params": 1, "macs": 1})


def test_a_builder_that_crashes_leaves_the_other_engines_of_the_run(tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    engines = [{"target": "tensorrt_rtx", "precision": "fp32"}, {"target": "onnxruntime", "precision": "fp32"}]
    loaded = load_recipe(str(recipe(tmp_path, weights, engines)))
    export = Stage("export", "onnx", f"{__name__}:export_attention", (), ())
    stages = [export, *(stage for stage in plan(loaded) if stage.kind in ("dataset", "engine"))]
    failed: list[StageFailure] = []
    with Workspace(tmp_path / "run").locked() as workspace:
        done = run_stages(loaded, workspace, stages, on_failure=failed.append)
    assert set(done) == {"export", "data", "engine/onnxruntime-fp32"}
    assert [one.name for one in failed] == ["engine/tensorrt_rtx-fp32"]
    assert failed[0].reason.startswith("tensorrt_rtx compile: the toolchain crashed with SIGSEGV; ")
    assert "\n" not in failed[0].reason
    assert not failed[0].is_bug


def test_a_study_keeps_the_scores_of_the_engines_beside_one_that_fails(tmp_path: Path, weights: Path) -> None:
    """The first study fails one engine, the second builds nothing again, and the third is asked to."""
    refused = {"target": "onnxruntime", "precision": "int8", "options": {"providers": ["AzureExecutionProvider"]}}
    path = recipe(
        tmp_path, weights, [refused, INT8], check="warn", qat={"train": {"steps": 2}},
        study={"seeds": [0], "quantized": {"baseline": "ptq", "arms": {"ptq": {}}}},
    )  # fmt: skip
    for arguments, attempts in (((), 1), ((), 1), (("--retry",), 2)):
        done = run_edgekd("study", str(path), "--out", str(tmp_path / "study"), *arguments)
        assert done.returncode == 1, done.stderr
        assert "ptq seed 0: done without evaluate/onnxruntime-int8: engine/onnxruntime-int8 failed: " in done.stderr
        assert "1 of 3 scores failed" in done.stderr
        assert "edgekd study" in done.stdout.partition("next:")[2]
        assert "--retry" in done.stdout.partition("next:")[2]
        arms = {arm.name: arm.runs[0] for arm in read_study(tmp_path / "study").arms}
        assert {name: run.status for name, run in arms.items()} == {
            "ptq onnxruntime-int8": "failed", "ptq openvino-int8": "measured", "ptq, float": "measured",
        }  # fmt: skip
        assert arms["ptq onnxruntime-int8"].reason.startswith("engine/onnxruntime-int8 failed: ")
        assert arms["ptq onnxruntime-int8"].reason in (tmp_path / "study/study.md").read_text()
        assert (tmp_path / "study/runs/ptq-seed0/log.txt").read_text().count("--- begin: ") == attempts

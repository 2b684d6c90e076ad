"""Instance segmentation on rendered scenes, from nothing to int8 engines: what holds of its rows, page and predictions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd.board.detection import Detections
from edgekd.data.coco_masks import decode_runs
from edgekd.data.formats import scenes
from edgekd.evaluate.detection import DetectionEvaluator
from tests.command import edgekd as run_edgekd
from tests.conftest import REPOSITORY
from tests.integration.conftest import LOG, TINY


@pytest.fixture
def run(tiny_objects_run: Path) -> Path:
    return tiny_objects_run


def test_every_row_is_measured_and_fp32_engines_score_as_torch_does(run: Path) -> None:
    rows = {row["id"]: row for row in edgekd.load_report(run)["rows"]}
    assert len(rows) == 8
    for row in rows.values():
        assert row["status"] == "measured", row
        assert {"map", "mask_map", "boundary_map"} <= set(row["metrics"])
        assert all(0 <= value <= 1 for value in row["metrics"].values())
        assert set(row["ap_per_class"]) == {"building", "sign", "ball", "ring"}
    for name in ("onnx-fp32", "onnxruntime-fp32", "openvino-fp32"):
        for metric, value in rows["distilled"]["metrics"].items():
            assert rows[name]["metrics"][metric] == pytest.approx(value, abs=2e-3), (name, metric)


def test_the_log_has_lines_of_stages_and_nothing_of_the_libraries(run: Path) -> None:
    stages = {json.loads(file.read_text())["stage"] for file in run.rglob("manifest.json")}
    lines = (run.parent / LOG).read_text().splitlines()
    assert {line.partition(":")[0] for line in lines} == stages


def test_both_students_start_from_the_same_weights_and_batch(run: Path) -> None:
    lines = [(run / name / "steps.csv").read_text().splitlines()[:2] for name in ("student", "distilled")]
    plain, distilled = (dict(zip(head.split(","), map(float, row.split(",")), strict=True)) for head, row in lines)
    for term in ("task", "scores", "boxes", "masks"):
        assert plain[term] == pytest.approx(distilled[term], abs=1e-5)
    assert {"ld.scores", "ld.boxes", "ld.masks", "bckd.boundary", "bckd.context"} <= set(distilled)


def test_an_engine_finds_what_the_report_scored(run: Path) -> None:
    options = scenes.Options(**TINY["data"]["options"])
    dataset = scenes.open_objects(options, "val", True)
    evaluator = DetectionEvaluator(dataset.classes, has_masks=True)
    with edgekd.load_engine(run / "engine" / "openvino-int8") as engine:
        for index in range(len(dataset)):
            sample = dataset.load(index)
            found = engine(sample.image)
            assert isinstance(found, Detections)
            assert found.masks is not None
            assert found.masks.whole().shape == (len(found.boxes), *sample.image.shape[:2])
            assert (np.diff(found.scores) <= 0).all()
            assert sample.instances is not None
            evaluator.update(sample.instances, found, sample.image.shape[:2])
    row = next(row for row in edgekd.load_report(run)["rows"] if row["id"] == "openvino-int8")
    assert evaluator.compute().metrics == pytest.approx(row["metrics"])


def test_decoding_in_the_graph_scores_as_decoding_behind_it(run: Path, tmp_path: Path) -> None:
    """int8, too: the decoding stays in float. What `nms` begins with is `boxes`."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    recipe = str(run.parent / "recipe.yaml")
    done = run_edgekd("run", recipe, "--out", str(copy), "--set", "export.detections=nms")
    assert done.returncode == 0, done.stderr
    with edgekd.load_engine(copy / "engine" / "openvino-int8") as engine:
        assert {tensor.role.split("_")[0] for tensor in engine.session.spec.outputs} == {"found", "prototypes"}
    rows = {row["id"]: row for row in edgekd.load_report(copy)["rows"]}
    for row in edgekd.load_report(run)["rows"]:
        assert rows[row["id"]]["metrics"] == pytest.approx(row["metrics"], abs=2e-3), row["id"]


def test_torch_the_onnx_file_and_fp32_engines_find_the_same_objects(run: Path) -> None:
    """Of 40 steps scores are low and close to the least that is kept; those within 1e-3 of it are not asked for."""
    script = REPOSITORY / "benchmarks" / "same_detections.py"
    done = subprocess.run([sys.executable, script, run, "--images", "6"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["export", "onnxruntime-fp32", "openvino-fp32"]
    assert int(lines[0].split("finds ")[1].split()[0]) > 0


def test_predict_writes_an_overlay_the_objects_and_their_masks(run: Path, tmp_path: Path) -> None:
    sample = scenes.open_dataset(scenes.Options(height=64, width=96), "val").load(1)
    Image.fromarray(sample.image).save(tmp_path / "street.png")
    out = tmp_path / "seen"
    done = run_edgekd(
        "predict", str(run / "engine" / "onnxruntime-fp32"), str(tmp_path / "street.png"), "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    objects = json.loads((out / "street_objects.json").read_text())
    assert all(set(entry) == {"class", "score", "box_xyxy", "mask"} for entry in objects)
    mask = np.array(Image.open(out / "street_mask.png"))
    assert mask.max() <= len(objects)
    assert Image.open(out / "street_overlay.png").size == (96, 64)
    for one in objects[:1]:
        drawn = decode_runs(one["mask"]["counts"], (64, 96))
        assert np.array_equal(drawn, mask == 1)  # the best lies on top

    command = ("predict", str(run / "engine" / "onnxruntime-fp32"), str(tmp_path / "street.png"), "--out", str(out))
    done = run_edgekd(*command, "--min-score", "0.06", "--max-detections", "2")
    assert done.returncode == 0, done.stderr
    few = json.loads((out / "street_objects.json").read_text())
    assert len(few) == 2
    assert [one["score"] for one in few] == sorted((one["score"] for one in few), reverse=True)
    assert "the 2 best are written, there may be more: see --max-detections" in done.stderr


def test_the_table_and_the_page_speak_of_the_task(run: Path) -> None:
    shown = run_edgekd("report", str(run))
    assert shown.returncode == 0, shown.stderr
    assert "mask mAP %" in shown.stdout
    page = (run / "report.html").read_text()
    assert "mask mAP" in page
    assert "false alarms" in page
    assert "Score threshold with the best F1" in page
    assert "mIoU" not in page


def test_a_segmenter_is_refused_for_objects_in_one_line(run: Path) -> None:
    recipe = str(run.parent / "recipe.yaml")
    done = run_edgekd("run", recipe, "--out", str(run.parent / "x"), "--set", "student.family=edgeseg")
    assert done.returncode == 2
    assert "no networks for task 'instance'; choose edgedet" in done.stderr
    done = run_edgekd("distill", recipe, "--plan", "--set", "distill.methods={kd: {}}")
    assert done.returncode == 2
    assert "distill.methods.kd: not for task 'instance'" in done.stderr

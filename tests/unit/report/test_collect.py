"""The collector: rows follow the engines' ids, and a stage that failed fails the row that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_stored import unknown_keys

from edgekd.board.timing import summarize
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.evaluate.image_scores import of_all
from edgekd.report.collect import collect, write_report
from edgekd.report.data_files import image_scores_of, read_arrays
from edgekd.report.model import Report, Row, StageTiming
from edgekd.report.page_data import write_data
from edgekd.report.stored import read_report
from tests.unit.core.small_recipe import small_recipe
from tests.unit.evaluate.test_object_matches import one_object_images

ENGINES = [
    {"target": "openvino", "precision": "fp32"},
    {"target": "openvino", "precision": "fp32", "id": "streams", "options": {"num_threads": 1}},
    {"target": "onnxruntime", "precision": "int8"},
]
IDS = ["openvino-fp32", "streams", "onnxruntime-int8"]
PLANNED = [
    *("data", "teacher", "student", "export", "bench"),
    *(f"{kind}/{name}" for kind in ("engine", "evaluate") for name in IDS),
]


def recipe_of(folder: Path) -> Recipe:
    return small_recipe(folder, engines=ENGINES)


def artifact(
    path: Path, kind: str, file: str = "weights.safetensors", source: str = "data", **details: Any
) -> Artifact:
    files = [{"name": file, "bytes": 100, "sha256": file[0] * 64}]
    manifest = {"kind": kind, "files": files, "inputs": {source: "0" * 64}}
    return Artifact(path, {**manifest, "details": {"params": 7, "macs": 9, **details}})


def timed(median_ns: int) -> dict[str, Any]:
    """Return the row of one engine as the bench leaves it."""
    summary = summarize(np.full(500, median_ns, np.int64))
    facts = {"throughput_fps": 1e9 / median_ns, "runtime": {"threads": 2}, "warnings": []}
    return {"latency_ms": summary, "wall_ms": summary, **facts}


def artifacts(folder: Path) -> dict[str, Artifact]:
    """Return the artifacts of a run in which everything was built, scored and timed."""
    training = {"steps": 10, "batch_size": 4, "seconds_per_step": 0.5, "precision": "32-true", "device": "cpu",
                "class_weights": None, "world_size": 1, "teacher_answers": None, "peak_memory_bytes": 2**20,
                "curve": [[5, 1.5], [10, 1.25]], "validation": [[10, 0.25]]}  # fmt: skip
    parity = {"different": 0.0, "compared": 100, "images": 2}
    rounds = {f"{name}/wall_bursts": np.ones(8, int) for name in IDS}
    np.savez(folder / "samples.npz", **rounds, **{f"{name}/wall_ns": np.full(8, i + 1) for i, name in enumerate(IDS)})
    found = {
        "data": artifact(folder, "dataset", classes=["a", "b"], splits={}),
        "teacher": artifact(folder, "checkpoint", training={}, methods={}),
        "student": artifact(folder, "checkpoint", training=training, methods={"kd": {"weight": 2.0}}),
        "export": artifact(folder, "onnx", "model.onnx", parity=parity),
        "bench": artifact(folder, "latency", rows={name: timed(1000 * (i + 1)) for i, name in enumerate(IDS)}),
    }
    for name, images in (("qdq-ptq", ["x"]), ("qdq-few", ["x", "y", "z"])):
        calibration = {"split": "train", "images": images, "seed": 3}
        found[f"quantize/{name}"] = artifact(folder, "quantized", calibration=calibration)
    for i, name in enumerate(IDS):
        source = "quantize/qdq-few" if "int8" in name else "export"
        found[f"engine/{name}"] = artifact(folder, "engine", f"{name}.bin", source, engine=f"{name}.bin")
        scores = {"metrics": {"miou": 0.5 + i / 10}, "iou_per_class": {"a": 1.0, "b": None}, "num_images": 3}
        found[f"evaluate/{name}"] = artifact(folder / name, "metrics", **scores, absent_classes=["b"])
    return found


def collected(folder: Path, failures: dict[str, str], failure: str = "", without: tuple[str, ...] = ()) -> Report:
    found = {name: one for name, one in artifacts(folder).items() if name not in without}
    timings = [StageTiming(name="data", seconds=0.5, skipped=True)]
    return collect(recipe_of(folder), found, timings, PLANNED, failures, failure)


def row_of(report: Report, name: str) -> Row:
    return next(row for row in report.rows if row.id == name)


def test_two_engines_of_one_target_and_precision_have_rows_of_their_own(tmp_path: Path) -> None:
    report = collected(tmp_path, {})
    engines = [row for row in report.rows if row.stage == "engine"]
    assert [(row.id, row.target, row.precision, row.board) for row in engines] == [
        ("openvino-fp32", "openvino", "fp32", "local"),
        ("streams", "openvino", "fp32", "local"),
        ("onnxruntime-int8", "onnxruntime", "int8", "local"),
    ]
    assert [(row.label, row.score, row.p50_ms) for row in engines] == [
        ("openvino-fp32", 0.5, pytest.approx(0.001)),
        ("streams (openvino fp32)", 0.6, pytest.approx(0.002)),
        ("onnxruntime-int8", 0.7, pytest.approx(0.003)),
    ]
    assert {row.status for row in engines} == {"measured"}
    assert [row.calibration and row.calibration.count for row in engines] == [None, None, 3]
    assert [row.sha256[0] for row in engines] == ["o", "s", "o"]


def test_what_is_written_is_what_was_collected_and_has_no_key_that_the_model_does_not_know(tmp_path: Path) -> None:
    report = collected(tmp_path, {})
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert unknown_keys(report) == []
    student = report.training["student"]
    assert (student.curve, student.validation) == ([(5, 1.5), (10, 1.25)], [(10, 0.25)])
    assert student.methods["kd"].weight == 2.0
    assert report.training["teacher"].steps is None
    assert row_of(report, "streams").iou_per_class == {"a": 1.0, "b": None}
    assert "latency_ms" not in row_of(report, "onnx-fp32").to_dict()
    assert list(report.definitions) == ["miou"]


@pytest.mark.parametrize("stage", ["engine/streams", "evaluate/streams", "bench/streams"])
def test_a_stage_of_one_engine_fails_the_row_of_that_engine_alone(stage: str, tmp_path: Path) -> None:
    report = collected(
        tmp_path, {stage: "the compiler ended by SIGSEGV"}, without=("engine/streams", "evaluate/streams")
    )
    failed = row_of(report, "streams")
    assert (failed.status, failed.reason) == ("failed", "the compiler ended by SIGSEGV")
    assert {row_of(report, name).status for name in IDS if name != "streams"} == {"measured"}


def test_a_bench_that_failed_fails_every_engine_and_no_network(tmp_path: Path) -> None:
    report = collected(tmp_path, {"bench": "no images", "engine/streams": "not built"}, without=("bench",))
    assert [(row.status, row.reason) for row in report.rows if row.stage == "engine"] == [
        ("failed", "no images"),
        ("failed", "not built"),
        ("failed", "no images"),
    ]
    assert row_of(report, "streams").score == 0.6  # what was measured stays in the row
    assert row_of(report, "onnx-fp32").status == "not measured"


def test_a_run_that_ended_early_fails_the_rows_that_it_did_not_reach(tmp_path: Path) -> None:
    late = ("bench", *(name for name in PLANNED if name.startswith("evaluate/")))
    report = collected(tmp_path, {"engine/streams": "not built"}, failure="the disk is full", without=late)
    assert row_of(report, "streams").reason == "not built"
    assert row_of(report, "openvino-fp32").reason == "the disk is full"
    assert report.failure == "the disk is full"


def test_an_engine_that_was_timed_and_not_scored_says_so(tmp_path: Path) -> None:
    row = row_of(collected(tmp_path, {}, without=("evaluate/streams",)), "streams")
    assert (row.status, row.reason, row.score) == ("measured", "not scored", None)


def test_pictures_are_stored_by_id(tmp_path: Path) -> None:
    recipe, found = recipe_of(tmp_path), artifacts(tmp_path)
    del found["bench"]
    for i, name in enumerate(IDS):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "pictures.npz", **{"0": np.full((4, 4), i, np.uint8)})
    write_data(recipe, found, tmp_path)
    with np.load(tmp_path / "report_data" / "pictures.npz") as archive:
        assert {name: int(archive[f"0/{name}"].max()) for name in IDS} == {name: i for i, name in enumerate(IDS)}


def test_image_counts_are_stored_by_id_and_those_of_an_earlier_state_go(tmp_path: Path) -> None:
    recipe, found = recipe_of(tmp_path), artifacts(tmp_path)
    del found["bench"]
    for i, name in enumerate(IDS):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "pictures.npz", **{"0": np.full((4, 4), i, np.uint8)})
        np.savez(tmp_path / name / "image_counts.npz", counts=np.full((2, 5, 3), i, np.uint32))
    write_data(recipe, found, tmp_path)
    stored = read_arrays(tmp_path / "report_data" / "image_counts.npz")
    assert {name: int(counts.max()) for name, counts in stored.items()} == {name: i for i, name in enumerate(IDS)}
    for name in IDS:
        (tmp_path / name / "image_counts.npz").unlink()
    write_data(recipe, found, tmp_path)
    assert read_arrays(tmp_path / "report_data" / "image_counts.npz") == {}


def test_matches_are_stored_by_row_and_read_again(tmp_path: Path) -> None:
    recipe, found = recipe_of(tmp_path), artifacts(tmp_path)
    del found["bench"]
    images = one_object_images(2, 1)
    for name in IDS:
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "pictures.npz", **{"0": np.zeros((4, 4), np.uint8)})
        np.savez(tmp_path / name / "image_counts.npz", **images.arrays())
    write_data(recipe, found, tmp_path)
    stored = read_arrays(tmp_path / "report_data" / "image_counts.npz")
    for name in IDS:
        again = image_scores_of(name, stored)
        assert again is not None
        assert of_all(again) == of_all(images)
    assert image_scores_of("another", stored) is None


def test_the_speed_of_an_engine_is_stored_with_its_interval(tmp_path: Path) -> None:
    speed = row_of(collected(tmp_path, {}), "streams").speed
    assert speed is not None
    assert (speed.against, speed.rounds, speed.verdict) == ("openvino-fp32", 8, "slower")
    assert speed.to_dict()["wall"] == {"ratio": 0.5, "low": 0.5, "high": 0.5}


def test_confusion_matrices_are_stored_by_id(tmp_path: Path) -> None:
    recipe, found = recipe_of(tmp_path), artifacts(tmp_path)
    scored = artifact(tmp_path / "streams", "metrics", confusion=[[3, 1], [0, 2]])
    (tmp_path / "streams").mkdir()
    np.savez(tmp_path / "streams" / "pictures.npz")
    write_data(recipe, {"bench": found["bench"], "evaluate/streams": scored}, tmp_path)
    with np.load(tmp_path / "report_data" / "confusion.npz") as archive:
        assert archive["streams"].tolist() == [[3, 1], [0, 2]]
    write_data(recipe, {"bench": found["bench"]}, tmp_path)
    assert not (tmp_path / "report_data" / "confusion.npz").exists()

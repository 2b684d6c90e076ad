"""The whole pipeline on rendered scenes: what it leaves, that its numbers agree with independent ones, its use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

import edgekd
from edgekd.core.artifact import open_artifact
from edgekd.data.formats import scenes
from edgekd.targets._nvidia.cuda import why_no_gpu
from tests.command import edgekd as run_edgekd
from tests.integration.conftest import TINY

ENGINES = ["onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8"]
ROWS = ["teacher", "student", "distilled", "onnx-fp32", *ENGINES]


def rows_of(run: Path) -> dict[str, dict]:
    return {row["id"]: row for row in edgekd.load_report(run)["rows"]}


def test_every_row_is_measured_and_carries_the_contract(tiny_run: Path) -> None:
    rows = rows_of(tiny_run)
    assert list(rows) == ROWS
    for row in rows.values():
        assert row["status"] == "measured", row
        assert all(0 <= value <= 1 for value in row["metrics"].values())
        assert row["num_images"] == 6
        assert row["params"] > 0
        assert row["size_bytes"] > 0
        assert len(row["sha256"]) == 64
    for engine in ENGINES:
        for series in ("latency_ms", "wall_ms"):
            latency = rows[engine][series]
            assert latency["n"] >= 50
            assert latency["min"] <= latency["p50"] <= latency["max"]
            assert ("p99" in latency) == (latency["n"] >= 459)  # fewer samples cannot carry it
        assert rows[engine]["wall_ms"]["p50"] > 0


def test_every_engine_has_its_sustained_latency_and_its_energy_or_why_there_is_none(tiny_run: Path) -> None:
    report = json.loads((tiny_run / "report.json").read_text())
    engines = [row for row in report["rows"] if row["stage"] == "engine"]
    for row in engines:
        assert row["sustained"]["runs"] > 0
        assert row["sustained"]["last_p50_ms"] > 0
        energy = row["energy"]
        assert energy["reason"].startswith("no power sensor readable") or energy["meters"]
    states = report["boards"]["local"]["state"]
    assert states["before"]["boot_id"] == states["after"]["boot_id"]
    written = json.loads((tiny_run / "bench/long_runs.json").read_text())
    assert set(written["rows"]) == {row["id"] for row in engines}
    assert set(json.loads((tiny_run / "report_data/timelines.json").read_text())) == set(written["rows"])
    assert 'id="power"' in (tiny_run / "report.html").read_text()


def test_baseline_and_distilled_student_share_budget_initialisation_and_data_order(tiny_run: Path) -> None:
    student, distilled = (open_artifact(tiny_run / name).details for name in ("student", "distilled"))
    assert student["training"]["steps"] == distilled["training"]["steps"] == 12
    first = [(tiny_run / name / "steps.csv").read_text().splitlines() for name in ("student", "distilled")]
    tasks = [float(dict(zip(lines[0].split(","), lines[1].split(","), strict=True))["task"]) for lines in first]
    assert tasks[0] == pytest.approx(tasks[1], abs=1e-5)  # same weights, same first batch
    assert list(distilled["methods"]) == ["dist", "bckd"]
    assert student["methods"] == {}


def test_nothing_of_the_teacher_is_saved_with_the_student(tiny_run: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny_run / "distilled" / "weights.safetensors", "pt") as file:
        distilled = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    with safe_open(tiny_run / "student" / "weights.safetensors", "pt") as file:
        plain = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert distilled == plain


def test_miou_equals_torchmetrics_and_the_onnx_file_run_by_hand(tiny_run: Path) -> None:
    options = TINY["data"]["options"]
    dataset = scenes.open_dataset(scenes.Options(**options), "val")
    runtime = onnxruntime.InferenceSession(str(tiny_run / "export" / "model.onnx"), providers=["CPUExecutionProvider"])
    spec = open_artifact(tiny_run / "export").spec
    mean, std = np.array(spec.preprocess.mean), np.array(spec.preprocess.std)
    oracle = MulticlassJaccardIndex(len(dataset.classes), average="macro", ignore_index=255)
    for index in range(len(dataset)):
        sample = dataset.load(index)
        pixels = ((sample.image / 255.0 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
        (logits,) = runtime.run(None, {"image": pixels})
        truth = torch.from_numpy(sample.mask.astype(np.int64))[None]
        # The graph ends before the network's last upsampling.
        large = torch.nn.functional.interpolate(torch.from_numpy(logits), truth.shape[1:], mode="bilinear")
        oracle.update(large.argmax(1), truth)
    assert rows_of(tiny_run)["onnx-fp32"]["metrics"]["miou"] == pytest.approx(float(oracle.compute()), abs=1e-4)


def test_calibration_comes_from_train_and_is_listed(tiny_run: Path) -> None:
    for artifact in (tiny_run / "quantize").iterdir():
        calibration = open_artifact(artifact).details["calibration"]
        assert calibration["split"] == "train"
        assert len(calibration["images"]) == 8
        assert all(name.startswith("train/") for name in calibration["images"])


def test_a_second_run_skips_every_stage(tiny_run: Path, tiny_recipe: Path) -> None:
    again = run_edgekd("run", str(tiny_recipe), "--out", str(tiny_run), "--json")
    assert again.returncode == 0, again.stderr
    assert all(stage["skipped"] for stage in json.loads(again.stdout)["stages"])


def test_stage_commands_reuse_the_run(tiny_run: Path, tiny_recipe: Path) -> None:
    for command in ("train", "distill", "export", "quantize", "compile", "bench", "evaluate"):
        done = run_edgekd(command, str(tiny_recipe), "--out", str(tiny_run))
        assert done.returncode == 0, done.stderr
        assert "done in" not in done.stderr
        assert "next: edgekd" in done.stdout
        assert all(row["status"] == "measured" for row in rows_of(tiny_run).values())  # the report keeps all of it
    for engine in ENGINES:
        assert rows_of(tiny_run)[engine]["latency_ms"]["p50"] > 0


def test_changed_settings_rerun_only_what_depends_on_them(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    done = run_edgekd("run", str(tiny_recipe), "--out", str(copy), "--set", "evaluate.pictures=1", "--json")
    ran = {stage["name"] for stage in json.loads(done.stdout)["stages"] if not stage["skipped"]}
    assert ran == {f"evaluate/{name}" for name in ("teacher", "student", "distilled", "export", *ENGINES)}


def test_what_the_report_leaves_out_is_said(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    done = run_edgekd("evaluate", str(tiny_recipe), "--out", str(copy), "--set", "bench.images=3")
    assert done.returncode == 0, done.stderr
    assert "the report leaves out bench: made with other settings" in done.stderr
    assert "latency_ms" not in rows_of(copy)["openvino-int8"]
    done = run_edgekd("evaluate", str(tiny_recipe), "--out", str(copy))
    assert "leaves out" not in done.stderr
    assert "latency_ms" in rows_of(copy)["openvino-int8"]


def test_an_engine_whose_device_is_absent_is_built_and_reported_with_the_reason(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    if not (reason := why_no_gpu()):
        pytest.skip("there is an NVIDIA GPU")
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    engines = "engines=[{target: tensorrt_rtx, precision: fp16}, {target: openvino, precision: fp32}]"
    done = run_edgekd("run", str(tiny_recipe), "--out", str(copy), "--set", engines)
    assert done.returncode == 0, done.stderr
    rows = rows_of(copy)
    absent = rows["tensorrt_rtx-fp16"]
    assert (absent["status"], absent["reason"]) == ("not measured", reason)
    assert absent["size_bytes"] == (copy / "engine/tensorrt_rtx-fp16/engine.plan").stat().st_size
    assert "metrics" not in absent
    assert "latency_ms" not in absent
    assert rows["openvino-fp32"]["latency_ms"]["p50"] > 0
    assert reason in (copy / "report.html").read_text()


def test_a_board_compiles_and_measures_without_what_trains(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "copied"
    shutil.copytree(tiny_run, out)
    engines = (
        "engines=[{target: openvino, precision: fp32, options: {num_threads: 1}}, {target: openvino, precision: int8}]"
    )
    trains = ("torch", "torchvision", "lightning", "timm", "segmentation_models_pytorch", "onnxsim", "nncf")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({trains!r})); from edgekd.cli.main import main; main()"
    for verb in ("compile", "bench"):
        command = [sys.executable, "-c", blocked, verb, str(tiny_recipe), "--out", str(out), "--set", engines]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (row,) = (row for row in edgekd.load_report(out)["rows"] if row["id"] == "openvino-fp32")
    assert (row["status"], row["reason"]) == ("measured", "not scored")
    assert row["latency_ms"]["n"] >= 50
    assert "openvino-fp32" in done.stdout  # the table
    command[3] = "train"
    refused = subprocess.run([*command, "--set", "student.train.steps=13"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "needs the package 'torch'" in refused.stderr.splitlines()[-1]


def test_engines_segment_a_path_or_an_array_at_image_size(tiny_run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    for name in ("engine/openvino-int8", "engine/onnxruntime-fp32", "export", "distilled"):
        with edgekd.load_engine(tiny_run / name) as engine:
            from_array, from_path = engine(pixels), engine(path)
        assert from_array.shape == (70, 110)
        assert from_array.dtype == np.uint8
        assert np.array_equal(from_array, from_path)
        assert from_array.max() < len(engine.classes)


def test_predict_takes_a_folder_and_goes_on_after_a_bad_image(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "street"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("")
    Image.new("RGB", (128, 96), (90, 90, 90)).save(folder / "b.png")
    engine = tiny_run / "engine" / "onnxruntime-int8"
    done = run_edgekd("predict", str(engine), str(folder), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 2
    assert [Path(entry["overlay"]).name for entry in json.loads(done.stdout)] == ["b_overlay.png"]
    assert "a.png: not an image, or damaged at its start" in done.stderr
    assert "1 of 2 images could not be read, the first: " in done.stderr
    done = run_edgekd("predict", str(tiny_run), str(folder))
    assert "give one of" in done.stderr
    assert "engine/onnxruntime-int8" in done.stderr


def test_predict_writes_an_overlay_and_an_index_mask(tiny_run: Path, tmp_path: Path) -> None:
    image = scenes.open_dataset(scenes.Options(height=64, width=96), "val").load(0).image
    Image.fromarray(image).save(tmp_path / "street.png")
    engine = tiny_run / "engine" / "openvino-int8"
    done = run_edgekd("predict", str(engine), str(tmp_path / "street.png"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    with edgekd.load_engine(engine) as loaded:
        expected = loaded(image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "street_mask.png")), expected)
    assert Image.open(tmp_path / "out" / "street_overlay.png").size == (96, 64)
    done = run_edgekd("predict", str(engine), str(tmp_path / "street.png"), "--min-score", "0.5")
    assert done.returncode == 2
    assert "a segmenter has no detections to select" in done.stderr


@pytest.mark.parametrize("settings", [("uint8_nhwc", True), ("uint8_nchw", False)])
def test_in_graph_preprocessing_and_argmax_give_the_same_class_map(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, settings: tuple[str, bool]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    entry, argmax = settings
    changes = (f"export.input={entry}", f"export.argmax={argmax}", "engines=[{target: openvino, precision: fp32}]")
    overrides = [word for change in changes for word in ("--set", change)]
    done = run_edgekd("compile", str(tiny_recipe), "--out", str(copy), *overrides)
    assert done.returncode == 0, done.stderr
    spec = open_artifact(copy / "engine" / "openvino-fp32").spec
    assert spec.inputs[0].dtype == entry.split("_")[0]
    assert spec.outputs[0].role == ("class_map" if argmax else "logits")
    image = scenes.open_dataset(scenes.Options(height=64, width=96), "val").load(1).image
    maps = []
    for run in (tiny_run, copy):
        with edgekd.load_engine(run / "engine" / "openvino-fp32") as engine:
            maps.append(engine(image))
    assert (maps[0] != maps[1]).mean() < 1e-3


def of_two_processes(**change: Any) -> dict[str, Any]:
    """Return a tiny recipe that two processes train on CPUs, and that scores its networks while they do."""
    networks = {
        name: {**TINY[name], "train": {**TINY[name]["train"], "validate_every": 6, "class_balance": 0.5}}
        for name in ("teacher", "student")
    }
    return {**TINY, **networks, "engines": [], "trainer": {"accelerator": "cpu", "devices": 2}, **change}


@pytest.mark.slow
def test_two_processes_end_together_at_a_limit_and_train_one_network_afterwards(tmp_path: Path) -> None:
    """Lightning starts the whole command a second time; on CPUs the two exchange gradients through gloo.

    Where one of them stopped alone, or first with an error, the other would wait, or be killed before it reports.
    """
    recipe, out = tmp_path / "two.yaml", tmp_path / "out"
    command = [sys.executable, "-m", "edgekd.cli.main", "run", str(recipe), "--out", str(out)]  # Lightning repeats it
    recipe.write_text(yaml.safe_dump(of_two_processes(distill={"methods": {"kd": {"weight": 1e300}}})))
    failed = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.count("edgekd: step 1: loss is not finite") == 1, failed.stderr
    reasons = [row["reason"] for row in json.loads((out / "report.json").read_text())["rows"]]
    assert any("step 1: loss is not finite" in reason for reason in reasons)

    recipe.write_text(yaml.safe_dump(of_two_processes()))
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # one process prints, and it prints once
    assert {row["id"] for row in report["rows"]} >= {"teacher", "student", "distilled"}
    for log, stage in ((failed, "teacher"), (failed, "student"), (done, "distilled")):
        assert f"\n{log.stderr}".count(f"\n{stage}: done") == 1
        training = open_artifact(out / stage, "checkpoint").details["training"]
        assert (training["steps"], training["batch_size"]) == (12, 4)
        assert [step for step, _ in training["validation"]] == [6, 12]  # the first process scores, the other goes on
    skipped = "skipped, already done"
    again = run_edgekd(*command[3:])
    assert again.stderr.count(skipped) == done.stderr.count(": done in") + done.stderr.count(skipped)

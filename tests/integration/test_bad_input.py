"""What users get wrong first: each gives one clear line on stderr, exit code 2, and loses nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from edgekd.core.artifact import open_artifact
from tests.command import edgekd as run_edgekd
from tests.integration.conftest import TINY

CLASSES = [f"class{i}" for i in range(11)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a valid little folder data set with 11 classes and a recipe.yaml for it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(
                tmp_path / f"images/{split}/{i}.png"
            )
            Image.fromarray(rng.integers(0, 11, (64, 96), dtype=np.uint8)).save(tmp_path / f"masks/{split}/{i}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    data = {"format": "folder", "options": {"root": "."}, "size": [64, 96]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**TINY, "data": data}))
    return tmp_path


def truncated_image(folder: Path) -> str:
    path = folder / "images/train/2.png"
    path.write_bytes(path.read_bytes()[:400])
    return "images/train/2.png"


def unreadable_image(folder: Path) -> str:
    (folder / "images/train/1.png").write_bytes(b"not an image")
    return "images/train/1.png"


def mask_of_another_size(folder: Path) -> str:
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(folder / "masks/train/0.png")
    return "32"


def label_37_of_11(folder: Path) -> str:
    mask = np.zeros((64, 96), np.uint8)
    mask[3, 5] = 37
    Image.fromarray(mask).save(folder / "masks/train/3.png")
    return "37"


def empty_split(folder: Path) -> str:
    for kind in ("images", "masks"):
        for file in (folder / kind / "val").iterdir():
            file.unlink()
    return "val"


def missing_mask(folder: Path) -> str:
    (folder / "masks/val/1.png").unlink()
    return "1"


@pytest.mark.parametrize(
    "damage", [truncated_image, unreadable_image, mask_of_another_size, label_37_of_11, empty_split, missing_mask]
)
@pytest.mark.parametrize("command", ["run", "data check"])
def test_bad_data_is_refused_in_one_line(folder: Path, damage: Callable[[Path], str], command: str) -> None:
    word = damage(folder)
    arguments = ["--out", "out"] if command == "run" else ["--sheet", "sheets"]
    line = refused(*command.split(), "recipe.yaml", *arguments, cwd=folder)
    assert word in line
    assert not list((folder / "out").glob("student/manifest.json"))


def test_data_check_passes_the_undamaged_set_and_draws_it(folder: Path) -> None:
    done = run_edgekd("data", "check", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "class10" in done.stdout
    assert Image.open(folder / "contact_sheet_val.png").width > 200


def test_data_check_prints_its_report_where_no_contact_sheet_can_be_written(folder: Path) -> None:
    done = run_edgekd("data", "check", str(folder / "recipe.yaml"), "--sheet", str(folder / "classes.txt/sheets"))
    assert done.returncode == 2
    assert "split train: 6 images, 0 bad" in done.stdout
    assert "split val: 3 images, 0 bad" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgekd: contact sheet not written: ")
    assert line.endswith("name another folder by --sheet")


def test_data_check_counts_equal_errors_and_gives_findings_as_json(folder: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((64, 96), 37, np.uint8)).save(folder / f"masks/train/{number}.png")
    done = run_edgekd("data", "check", str(folder / "recipe.yaml"), "--sheet", str(folder), "--json")
    assert done.returncode == 2
    (found,) = json.loads(done.stdout)["splits"][0]["findings"]
    assert (found["code"], found["is_error"], found["count"], found["first"]) == ("unreadable", True, 4, "0.png")
    assert "masks/train/0.png: label 37" in done.stderr
    assert "(3 more like this)" in done.stderr


def test_a_wrong_root_is_named(folder: Path) -> None:
    assert "nowhere" in refused("run", "recipe.yaml", "--set", "data.options.root=nowhere", cwd=folder)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "did you mean 'quickstart'" in refused("run", "quickstrat", "--out", "out", cwd=tmp_path)


def test_a_recipe_typo_gets_a_suggestion(tiny_recipe: Path) -> None:
    assert "did you mean 'steps'" in refused("run", str(tiny_recipe), "--set", "student.train.stpes=3")


def test_an_unknown_option_of_a_method_gets_a_suggestion(tiny_recipe: Path, tmp_path: Path) -> None:
    line = refused(
        "run", str(tiny_recipe), "--set", "distill.methods.kd.options.temprature=2", "--out", "out", cwd=tmp_path
    )
    assert "did you mean 'temperature'" in line


def test_a_checkpoint_of_another_network_is_refused(tiny_recipe: Path, tiny_run: Path, tmp_path: Path) -> None:
    student = tiny_run / "student" / "weights.safetensors"
    line = refused("run", str(tiny_recipe), "--set", f"teacher.checkpoint={student}", "--out", "out", cwd=tmp_path)
    assert "teacher.checkpoint" in line


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tiny_recipe: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    for name, write in (
        ("plain.pkl", lambda path: path.write_bytes(pickle.dumps(Payload()))),
        ("torch.pt", lambda path: torch.save({"state_dict": Payload()}, path)),
    ):
        path = tmp_path / name
        write(path)
        refused("run", str(tiny_recipe), "--set", f"teacher.checkpoint={path}", "--out", "out", cwd=tmp_path)
        assert not marker.exists()


def test_a_truncated_checkpoint_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refused(
        "run", str(tiny_recipe), "--set", f"teacher.checkpoint={path}", "--out", "out", cwd=tmp_path
    )


def test_an_unsupported_precision_is_refused_before_any_training(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = refused("run", str(tiny_recipe), "--set", "engines.0.precision=int3", "--out", str(out))
    assert "int3" in line
    assert not (out / "teacher").exists()


def test_an_input_size_that_the_network_cannot_take_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    assert "250" in refused("run", str(tiny_recipe), "--set", "data.size=[250,96]", "--out", "out", cwd=tmp_path)


def test_a_file_in_place_of_the_output_folder_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    assert "not a folder" in refused("run", str(tiny_recipe), "--out", "out", cwd=tmp_path)
    assert (tmp_path / "out").read_text() == "precious"


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(out)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        command = ("run", str(tiny_recipe), "--out", str(out / "run"), "--until", "student")
        assert "No space left" in refused(*command)
        assert open_artifact(out / "run" / "data").kind == "dataset"
        subprocess.run(["mount", "-o", "remount,size=200m", str(out)], check=True)
        done = run_edgekd(*command)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def test_an_unwritable_disk_is_one_line(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "readonly"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(out)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a read-only file system needs root")
    try:
        assert "Read-only" in refused("run", str(tiny_recipe), "--out", str(out / "run"))
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def test_two_runs_in_one_folder_the_second_is_refused_and_the_first_ends_well(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "edgekd.cli.main",
        "run",
        str(tiny_recipe),
        "--out",
        str(out),
        "--until",
        "teacher",
    ]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while not (out / "data" / "manifest.json").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        assert "another edgekd run" in refused("run", str(tiny_recipe), "--out", str(out))
    finally:
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert open_artifact(out / "teacher").kind == "checkpoint"


def test_a_damaged_engine_is_refused_by_predict(tiny_run: Path, tmp_path: Path) -> None:
    line = refused("predict", str(tiny_run), str(tmp_path / "image.png"))
    assert "manifest.json" in line


def test_a_weak_teacher_is_refused_with_exit_1_and_reported(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_edgekd("run", str(tiny_recipe), "--out", str(out), "--set", "teacher.floor=0.99")
    assert done.returncode == 1
    assert "teacher.floor" in done.stderr.splitlines()[-1]
    assert open_artifact(out / "teacher").kind == "checkpoint"
    assert "teacher.floor" in (out / "report.html").read_text()


def refused(*arguments: str, cwd: Path | None = None) -> str:
    """Run the command line, assert exit code 2 without a traceback, and return the one line that says why."""
    done = run_edgekd(*arguments, cwd=cwd)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("edgekd: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize(
    "name", ["engine/openvino-int8/engine.bin", "export/model.onnx", "distilled/weights.safetensors"]
)
def test_a_flipped_byte_is_refused_by_predict(tiny_run: Path, tmp_path: Path, name: str) -> None:
    """At equal size, in an engine, an ONNX file and a checkpoint; the run that the fixture shares gets its byte back."""
    file = tiny_run / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    Image.new("RGB", (96, 64)).save(tmp_path / "image.png")
    try:
        file.write_bytes(damaged)
        line = refused("predict", str(file.parent), str(tmp_path / "image.png"), "--out", str(tmp_path / "out"))
    finally:
        file.write_bytes(whole)
    assert f"{file}: damaged: expected content of sha256 " in line
    assert f"remove {file.parent} and run again" in line


def test_a_flipped_byte_in_a_finished_run_is_told_once_and_made_again(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    file = run / "engine/openvino-fp32/engine.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = run_edgekd("compile", str(tiny_run.parent / "recipe.yaml"), "--out", str(run))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if f"{file}: damaged: expected content of sha256" in line]
    assert len(told) == 1
    assert "it is made again, what is left is kept in .previous" in told[0]
    assert file.read_bytes() == whole


def test_refused_data_has_a_page_that_replaces_none(folder: Path) -> None:
    label_37_of_11(folder)
    for kept in (None, '{"schema": "edgekd.report/1", "title": "an earlier run"}'):
        if kept:
            (folder / "out/report.json").write_text(kept)
        refused("run", str(folder / "recipe.yaml"), "--out", str(folder / "out"))
        text = (folder / "out/report.json").read_text()
        assert text == kept if kept else "label 37" in text
    assert "label 37" in (folder / "out/report.html").read_text()

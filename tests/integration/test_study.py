"""`edgekd study` from the command line: every run is made once, and a second call only adds what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock

from edgekd.core.artifact import open_artifact
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.formats import scenes
from tests.command import edgekd
from tests.integration.conftest import TINY

STUDY = {
    **TINY,
    "engines": [],
    "student": {**TINY["student"], "train": {"steps": 4, "batch_size": 4, "validate_every": 2, "class_balance": 0.5}},
    "study": {"seeds": [7], "arms": {"held": {"cwd": {}}, "kd": {"kd": {}}, "wild": {"kd": {"weight": 1e300}}}},
}


@pytest.mark.slow
def test_a_study_measures_every_arm_once_and_reports_what_fails(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "study"
    recipe.write_text(yaml.safe_dump(STUDY))
    command = ("study", str(recipe), "--out", os.path.relpath(out), "--jobs", "2")
    out.joinpath("runs/kd-seed7").mkdir(parents=True)
    out.joinpath("runs/held-seed7").mkdir(parents=True)
    with FileLock(out / "runs/kd-seed7/.claim"), FileLock(out / "runs/held-seed7/.lock"):
        first = edgekd(*command)  # another machine has claimed one run, somebody runs another's recipe by hand
    assert first.returncode == 1, first.stderr
    assert "1 of 4 runs failed" in first.stderr
    for arm in ("kd", "held"):
        assert f"{arm} seed 7: another process works on it" in first.stderr
    assert "wild seed 7: failed: step 1: loss" in first.stderr
    assert "(3 of 4 runs are missing)" in first.stdout

    made = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/[sd]*/weights.safetensors")}
    assert len(made) == 1
    with FileLock(out / "runs/held-seed7/.lock"):
        second = edgekd(*command, "--json")
    study = json.loads((out / "study.json").read_text())
    assert second.returncode == 1, second.stderr
    assert json.loads(second.stdout) == study
    assert all(path.stat().st_mtime_ns == made[path] for path in made)
    (plain,), (held,), (kd,), (wild,) = (arm["runs"] for arm in study["arms"])
    assert [run["status"] for run in (plain, kd, held, wild)] == ["measured", "measured", "missing", "failed"]
    assert held["reason"] == "another process works on it"
    assert "is not finite; lower lr" in wild["reason"]
    for run in (plain, kd):
        assert run["steps"] == 4
        assert [step for step, _ in run["validation"]] == [2, 4]
        assert run["validation"][-1][1] == pytest.approx(run["metrics"]["miou"], abs=1e-4)
        assert run["peak_memory_bytes"] > 2**20
    assert {"study.csv", "study.md", "study.png"} <= {path.name for path in out.iterdir()}
    for folder, stage in (("plain-seed7", "student"), ("kd-seed7", "distilled")):
        training = open_artifact(out / "runs" / folder / stage, "checkpoint").details["training"]
        np.testing.assert_allclose(training["class_weights"], weights_of_classes(), rtol=1e-5)


def weights_of_classes() -> np.ndarray:
    """Return what a balance of 0.5 makes of the pixels of the training split, counted here once more."""
    split = scenes.open_dataset(scenes.Options(**TINY["data"]["options"]), "train")
    masks = np.concatenate([split.load(index).mask.ravel() for index in range(len(split))])
    counts = np.bincount(masks[masks != IGNORE_INDEX], minlength=len(split.classes))
    root = np.divide(1, np.sqrt(counts), out=np.zeros(len(counts)), where=counts > 0)
    return root * counts.sum() / (counts * root).sum()


@pytest.mark.slow
def test_what_must_stop_a_study_stops_it_before_anything_is_trained(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "study"
    wrong = {"seeds": [7], "arms": {"kd": {"kd": {}}, "far": {"bckd": {"options": {"strides": {"64": 1.0}}}}}}
    recipe.write_text(yaml.safe_dump({**STUDY, "study": wrong}))
    done = edgekd("study", str(recipe), "--out", str(out))
    assert done.returncode == 2
    assert "study.arms.far: bckd.strides: the student has features at strides" in done.stderr
    assert not out.exists()

    recipe.write_text(yaml.safe_dump({**STUDY, "teacher": {**TINY["teacher"], "floor": 0.99}}))
    done = edgekd("study", str(recipe), "--out", str(out))
    assert done.returncode == 1
    assert "below teacher.floor = 0.990" in done.stderr
    assert not (out / "runs").exists()

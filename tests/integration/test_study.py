"""`edgekd study` from the command line: every run is made once, and a second call only adds what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.integration.conftest import TINY, edgekd

STUDY = {
    **TINY,
    "engines": [],
    "student": {**TINY["student"], "train": {"steps": 4, "batch_size": 4, "validate_every": 2}},
    "study": {"seeds": [0, 1], "arms": {"kd": {"kd": {}}}},
}


@pytest.mark.slow
def test_a_study_measures_every_arm_and_seed_once(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "study"
    recipe.write_text(yaml.safe_dump(STUDY))
    command = ("study", str(recipe), "--out", str(out), "--jobs", "2", "--json")
    out.joinpath("runs/kd-seed1").mkdir(parents=True)
    with FileLock(out / "runs/kd-seed1/.claim"):  # as another machine would hold it
        first = edgekd(*command)
    assert first.returncode == 0, first.stderr
    assert "kd seed 1: worked on by another process" in first.stderr
    plain, kd = json.loads(first.stdout)["arms"]
    assert [run["status"] for run in (*plain["runs"], *kd["runs"])] == ["measured", "measured", "measured", "missing"]

    made = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/[sd]*/weights.safetensors")}
    assert len(made) == 3
    second = edgekd(*command)
    study = json.loads((out / "study.json").read_text())
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout) == study
    assert all(path.stat().st_mtime_ns == made[path] for path in made)
    runs = [run for arm in study["arms"] for run in arm["runs"]]
    assert all(run["status"] == "measured" and run["steps"] == 4 for run in runs)
    assert [step for step, _ in runs[0]["validation"]] == [2, 4]
    assert runs[0]["validation"][-1][1] == pytest.approx(runs[0]["metrics"]["miou"], abs=1e-4)
    assert all(run["peak_memory_bytes"] > 2**20 for run in runs)
    assert {"study.md", "study.png"} <= {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "study"
    # The watchdog stops what dwarfs the labels: 50 steps are its window.
    student = {**TINY["student"], "train": {"steps": 50, "batch_size": 2}}
    study = {"seeds": [0], "arms": {"mad": {"kd": {"weight": 1e6, "warmup": 0.0}}}}
    recipe.write_text(yaml.safe_dump({**STUDY, "student": student, "study": study}))
    done = edgekd("study", str(recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "mad seed 0: failed: step 50: the weighted distillation terms are" in done.stderr
    plain, mad = json.loads((out / "study.json").read_text())["arms"]
    assert (plain["runs"][0]["status"], mad["runs"][0]["status"]) == ("measured", "missing")
    assert "lower distill.methods.kd.weight" in mad["runs"][0]["reason"]
    assert "1 runs have no result yet" in done.stdout

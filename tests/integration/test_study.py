"""`edgekd study` from the command line: every run is made once, and a second call only adds what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.command import edgekd
from tests.integration.conftest import TINY

STUDY = {
    **TINY,
    "engines": [],
    "student": {**TINY["student"], "train": {"steps": 4, "batch_size": 4, "validate_every": 2}},
    # The students have no features at stride 64, so that arm fails.
    "study": {"seeds": [7], "arms": {"kd": {"kd": {}}, "wrong": {"bckd": {"options": {"strides": {"64": 1.0}}}}}},
}


@pytest.mark.slow
def test_a_study_measures_every_arm_once_and_reports_what_fails(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "study"
    recipe.write_text(yaml.safe_dump(STUDY))
    command = ("study", str(recipe), "--out", str(out), "--jobs", "2")
    out.joinpath("runs/kd-seed7").mkdir(parents=True)
    with FileLock(out / "runs/kd-seed7/.claim"):  # as another machine would hold it
        first = edgekd(*command)
    assert first.returncode == 0, first.stderr
    assert "kd seed 7: worked on by another process" in first.stderr
    assert "wrong seed 7: failed: bckd.strides: the student has features at strides" in first.stderr
    assert "(2 runs have no result yet)" in first.stdout

    made = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/[sd]*/weights.safetensors")}
    assert len(made) == 1
    second = edgekd(*command, "--json")
    study = json.loads((out / "study.json").read_text())
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout) == study
    assert all(path.stat().st_mtime_ns == made[path] for path in made)
    (plain,), (kd,), (wrong,) = (arm["runs"] for arm in study["arms"])
    assert [run["status"] for run in (plain, kd, wrong)] == ["measured", "measured", "missing"]
    assert "name at least one of them" in wrong["reason"]
    for run in (plain, kd):
        assert run["steps"] == 4
        assert [step for step, _ in run["validation"]] == [2, 4]
        assert run["validation"][-1][1] == pytest.approx(run["metrics"]["miou"], abs=1e-4)
        assert run["peak_memory_bytes"] > 2**20
    assert {"study.md", "study.png"} <= {path.name for path in out.iterdir()}

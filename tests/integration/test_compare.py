"""`edgekd compare` and `edgekd gate` on real runs: a copy, one that got worse by one option, one of another split."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.evaluate.image_counts import scores
from edgekd.report.stored import read_report
from tests.command import edgekd


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny run `good`, the same with a larger student, and on another split."""
    folder = tmp_path_factory.mktemp("compare")
    shutil.copyfile(tiny_run.parent / "recipe.yaml", folder / "recipe.yaml")
    for name, changed in (("good", ""), ("worse", "student.variant=xs"), ("other", "data.val=test")):
        shutil.copytree(tiny_run, folder / name)
        if changed:
            done = edgekd(
                "run", "recipe.yaml", "--out", name, "--set", changed, "--set", "data.options.test=6", cwd=folder
            )
            assert done.returncode == 0, done.stderr
    return folder  # fmt: skip


def figures(pair: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return row -> figure of a printed pair."""
    return {row["id"]: one for row in pair["rows"] for one in row["figures"] if one["figure"] == name}


def test_the_image_counts_of_a_run_give_its_scores(runs: Path) -> None:
    report = read_report(runs / "good")
    with np.load(runs / "good/report_data/image_counts.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {row.id for row in report.rows}
        for row in report.rows:
            found = scores(archive[row.id].sum(axis=0))
            assert {name: float(value) for name, value in found.items()} == {name: row.metrics[name] for name in found}
    assert len({row.images_sha256 for row in report.rows}) == 1


def test_runs_are_compared_as_far_as_they_are_comparable(runs: Path) -> None:
    done = edgekd("compare", "good", "worse", "other", "--json", cwd=runs)
    assert (done.returncode, done.stderr) == (0, "")
    worse, other = json.loads(done.stdout)["pairs"]
    reports = {name: {row.id: row for row in read_report(runs / name).rows} for name in ("good", "worse")}
    assert {one["key"] for one in worse["changes"]} == {"student.variant", "data.options.test"}
    assert worse.get("refused", []) == []
    for row, found in figures(worse, "miou").items():
        score = reports["worse"][row].metrics["miou"], reports["good"][row].metrics["miou"]
        assert found["change"] == pytest.approx((score[0] or 0) - (score[1] or 0))
        if row == "teacher":
            assert found["verdict"] == "same"
        else:
            assert found["verdict"] == "not decided"  # six images
            assert found["note"].startswith("6 images are too few for an interval")
    sizes = figures(worse, "size_bytes")
    assert {row: found["verdict"] for row, found in sizes.items()} == {
        row: "same" if row == "teacher" else "worse" for row in reports["good"]
    }
    assert {row["id"]: row["weights"] for row in worse["rows"]} == {
        row: "same" if row == "teacher" else "retrained" for row in reports["good"]
    }
    (refused,) = other["refused"]
    assert refused["kind"] == "score"
    assert refused["reason"].endswith("(6 images of split 'val'; 6 images of split 'test')")
    assert {one["verdict"] for one in figures(other, "size_bytes").values()} == {"same"}
    assert figures(other, "latency_p50_ms")["openvino-int8"]["change"] is not None


def test_a_gate_holds_the_copy_and_breaks_on_the_run_that_got_worse(runs: Path) -> None:
    shutil.copytree(runs / "good", runs / "copy")
    assert edgekd("gate", "copy", "--baseline", "good", cwd=runs).returncode == 0
    done = edgekd("gate", "worse", "--baseline", "good", "--junit", "gate.xml", "--markdown", "gate.md", cwd=runs)
    assert done.returncode == 1, done.stdout
    assert re.search(r"broken: openvino-int8: size at most 1\.01× that of baseline: [1-9]", done.stdout)
    assert "passed: teacher: mIoU at most 1.0 points worse than baseline: 0.0 points" in done.stdout
    assert "<failure" in (runs / "gate.xml").read_text(encoding="utf-8")
    assert "broken" in (runs / "gate.md").read_text(encoding="utf-8")


def test_a_gate_does_not_pass_scores_of_another_split(runs: Path) -> None:
    done = edgekd("gate", "other", "--baseline", "good", cwd=runs)
    assert done.returncode == 1
    assert "not comparable: the scored images or labels differ" in done.stdout

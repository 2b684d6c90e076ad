"""Runs of detectors: the interval of mAP decides in `edgekd compare` and in `edgekd gate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import report

from edgekd.comparison.compare import compare
from edgekd.comparison.gate import gate
from edgekd.comparison.limits import Limits
from edgekd.comparison.model import Difference
from edgekd.comparison.runs import Run
from edgekd.evaluate.image_scores import of_all
from tests.unit.evaluate.test_object_matches import one_object_images

IMAGES = 60


def write(folder: Path, found: int, **changed: Any) -> Path:
    """Write a run of a detector whose int8 engine finds `found` of 60 objects, and its other rows 30."""
    data = folder / "report_data"
    data.mkdir(parents=True)
    content, arrays = report(task="detection", classes=["a", "b", "c"]), dict[str, np.ndarray]()
    for row in content["rows"]:
        row.pop("rounds_ms", None)
        right = found if row["id"] == "openvino-int8" else 30
        images = one_object_images(right, IMAGES - right)
        row |= {"metrics": {**of_all(images), "map_small": 0.5}, "num_images": IMAGES, "sha256": f"{row['id']} {right}"}
        row |= changed if row["id"] == "openvino-int8" else {}
        arrays |= {f"{row['id']}/{name}": array for name, array in images.arrays().items()}
    np.savez(data / "image_counts.npz", **arrays)
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def figure(folder: Path, name: str, found: int, **changed: Any) -> Difference:
    paths = [write(folder / "old", 30), write(folder / "new", found, **changed)]
    (pair,) = compare(paths).pairs
    row = next(one for one in pair.rows if one.id == "openvino-int8")
    return next(one for one in row.figures if one.figure == name)


@pytest.mark.parametrize(("found", "verdict"), [(45, "better"), (15, "worse"), (31, "better")])
def test_the_images_decide_about_map(found: int, verdict: str, tmp_path: Path) -> None:
    one = figure(tmp_path, "map", found)
    assert one.low is not None
    assert one.high is not None
    assert one.change is not None
    assert one.low <= one.change <= one.high
    assert one.verdict == (verdict if abs(found - 30) > 1 else "not decided")  # one object may be in no resample


def test_a_metric_without_an_interval_says_so(tmp_path: Path) -> None:
    one = figure(tmp_path, "map_small", 45, metrics={**of_all(one_object_images(45, 15)), "map_small": 0.6})
    assert one.verdict == "not decided"
    assert one.note == "no interval for this metric"


def test_matches_that_do_not_give_the_score_are_not_used(tmp_path: Path) -> None:
    one = figure(tmp_path, "map", 45, metrics={"map": 0.9})
    assert "no counts or matches by image, so no interval" in one.note


@pytest.mark.parametrize(
    ("least", "outcome", "is_decided"), [(0.2, "passed", True), (0.45, "broken", False), (0.8, "broken", True)]
)
def test_a_limit_on_map_is_held_to_the_interval(least: float, outcome: str, is_decided: bool, tmp_path: Path) -> None:
    """30 of 60 objects: mAP is 51/101, and its interval about 0.38 to 0.63."""
    wanted = {"row": "openvino-int8", "figure": "map", "min": least}
    limits = Limits.model_validate({"schema": "edgekd.limits/1", "undecided": "fail", "limits": [wanted]})
    (check,) = gate(Run(write(tmp_path / "run", 30)), limits, None).checks
    assert (check.outcome, check.is_decided) == (outcome, is_decided)

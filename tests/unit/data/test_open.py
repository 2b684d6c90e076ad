"""The stage `data`: what it records of a set of objects whose labels had to be repaired."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from edgekd.core.artifact import Artifact
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import StageJob
from edgekd.data.open import run
from edgekd.report.collect import collect

# In train, of 10x4: a box from -0.5 px on, one without width, one twice; in val all is well.
ROWS = {
    "train": "0 0.2 0.5 0.5 0.5\n1 0.5 0.5 0 0.5\n1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n",
    "val": "1 0.5 0.5 0.5 0.5\n",
}
REPAIRS = {
    "equal rows counted once": 1,
    "boxes cut at the image's edge": 1,
    "boxes without area left out": 1,
    "label files without an image left out": 1,
}


def test_repairs_are_recorded_logged_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, rows in ROWS.items():
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new("RGB", (10, 4)).save(tmp_path / f"images/{split}/{split}.png")
        (tmp_path / f"labels/{split}/{split}.txt").write_text(rows)
    (tmp_path / "labels/train/gone.txt").write_text("")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    changes = ["data.format=yolo", f"data.options={{root: {tmp_path}}}"]
    recipe = load_recipe("quickstart_detection", changes)
    with caplog.at_level(logging.INFO, "edgekd"):
        details = run(StageJob(recipe, {}, tmp_path)).details
    assert details["splits"]["train"]["repairs"] == REPAIRS
    assert details["splits"]["val"]["repairs"] == {}
    assert sorted(caplog.messages) == sorted(f"split train: {count} {what}" for what, count in REPAIRS.items())
    artifact = Artifact(tmp_path, {"kind": "dataset", "details": details})
    assert collect(recipe, {"data": artifact}, [], [], "")["repairs"] == {"train": REPAIRS}

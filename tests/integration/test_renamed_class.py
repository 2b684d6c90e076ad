"""A class that gets another name after the training: it is exported and scored under the new name, and not trained again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from edgekd.core.artifact import open_artifact
from tests.command import edgekd
from tests.integration.conftest import TINY


def test_a_renamed_class_is_exported_and_scored_and_not_trained_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, shape, values in (("images", (64, 96, 3), 256), ("masks", (64, 96), 2)):
            (tmp_path / kind / split).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, values, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / kind / split / f"{number}.png")
    data = {"format": "folder", "options": {"root": "."}, "size": [64, 96]}
    budget = {"family": "edgeseg", "variant": "n", "train": {"steps": 1, "batch_size": 2}}
    more = {"student": budget, "distill": {"methods": {}}, "engines": []}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**TINY, "data": data, **more}))
    said = []
    for names in ("road\nkreb\n", "road\nkerb\n"):
        (tmp_path / "classes.txt").write_text(names)
        done = edgekd("run", "recipe.yaml", "--out", "out", "--until", "export,evaluate/student", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    assert "data: running again: outside of the run: classes.train" in said[1]
    assert "student: skipped, already done" in said[1]
    assert "export: running again" in said[1]
    assert open_artifact(tmp_path / "out/export").spec.classes == ("road", "kerb")
    scores = open_artifact(tmp_path / "out/evaluate/student").details["iou_per_class"]
    assert list(scores) == ["road", "kerb"]

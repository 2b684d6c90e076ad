"""One tiny pipeline run on the embedded scenes, shared by the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.command import edgekd

TINY = {
    "name": "tiny",
    "data": {
        "format": "scenes",
        "options": {"height": 64, "width": 96, "train": 24, "val": 6},
        "size": [64, 96],
    },
    "teacher": {"family": "edgeseg", "variant": "xs", "train": {"steps": 12, "batch_size": 4, "checkpoint_every": 3}},
    "student": {"family": "edgeseg", "variant": "n", "train": {"steps": 12, "batch_size": 4, "checkpoint_every": 3}},
    "quantize": {"images": 8},
    "engines": [
        {"target": target, "precision": precision}
        for target in ("onnxruntime", "openvino")
        for precision in ("fp32", "int8")
    ],
    "bench": {"min_samples": 50, "min_seconds": 0.1, "warmup_max_seconds": 0.5, "images": 4},
    "evaluate": {"pictures": 2},
}


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe that runs the whole pipeline in seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of one finished run through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done = edgekd("run", str(tiny_recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out

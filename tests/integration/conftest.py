"""Tiny pipeline runs on the embedded scenes, each made once and shared by all tests and workers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.command import edgekd

LOG = "stderr.txt"
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
    "bench": {
        "min_samples": 50,
        "min_seconds": 0.05,
        "warmup_max_seconds": 0.05,
        "images": 4,
        "energy_seconds": 0.5,
        "sustained_seconds": 0.5,
        "cool_down_seconds": 0,
    },
    "evaluate": {"pictures": 2},
}
TINY_OBJECTS = {
    **TINY,
    "name": "tiny_objects",
    "task": "instance",
    "export": {"detections_tolerance": 0.05},
    **{
        network: {"family": "edgedet", "variant": variant, "train": {"steps": 40, "batch_size": 4, "lr": 0.003}}
        for network, variant in (("teacher", "xs"), ("student", "n"))
    },
}

TINY_DETECTION = {
    **TINY_OBJECTS,
    "name": "tiny_detection",
    "task": "detection",
    "engines": [{"target": "onnxruntime", "precision": "fp32"}],
    "distill": {"methods": {}},
}


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe that runs the whole pipeline in seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of one finished run through the command line."""
    return run_once(TINY, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_objects_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of one finished run for instance segmentation."""
    return run_once(TINY_OBJECTS, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_detection_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of one run of a detector, up to its one engine."""
    return run_once(TINY_DETECTION, tmp_path_factory, "--until", "engine")


def run_once(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, *options: str) -> Path:
    """This worker's copy of a run that is made once for all workers. Beside it: `recipe.yaml` and the log of standard error."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared" / recipe["name"]
    made.mkdir(parents=True, exist_ok=True)
    with FileLock(made / ".made"):
        if not (made / "run/report.json").exists():
            (made / "recipe.yaml").write_text(yaml.safe_dump(recipe))
            done = edgekd("run", "recipe.yaml", "--out", "run", *options, cwd=made)  # as users type it: relative paths
            assert done.returncode == 0, done.stderr
            (made / LOG).write_text(done.stderr)
    own = tmp_path_factory.mktemp(recipe["name"])
    for name in ("recipe.yaml", LOG):
        shutil.copyfile(made / name, own / name)
    shutil.copytree(made / "run", own / "run")
    return own / "run"

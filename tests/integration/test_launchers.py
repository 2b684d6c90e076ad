"""A study whose runs are jobs of Slurm (submitit's local cluster) or tasks of Ray (two nodes on this machine)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekd.study.model import Study
from edgekd.study.results import read_study
from tests.command import edgekd
from tests.integration.conftest import TINY

STEPS = 40


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    budget = {"steps": STEPS, "batch_size": 4, "checkpoint_every": 5}
    tree = {
        **TINY, "engines": [], "student": {**TINY["student"], "train": budget},
        "teacher": {**TINY["teacher"], "train": {"steps": 3, "batch_size": 4}},
        "study": {"seeds": [0, 1], "arms": {"kd": {"kd": {}}}},
    }  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def wait_until(is_so: Callable[[], Any], seconds: float = 240) -> Any:
    until = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def check_complete(study: Study, folder: Path) -> None:
    """Every run is measured, and its training took every step once."""
    assert [[run.status for run in arm.runs] for arm in study.arms] == [["measured"] * 2] * 2
    for arm in study.arms:
        for run in arm.runs:
            stage = "student" if arm.name == "plain" else "distilled"
            steps = (folder / f"runs/{arm.name}-seed{run.seed}/{stage}/steps.csv").read_text().splitlines()[1:]
            assert [int(line.partition(",")[0]) for line in steps] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_preempted_job_of_slurm_is_queued_again_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    folder, preempted = tmp_path / "study", []

    def preempt() -> None:
        """Send the signal that Slurm sends before it preempts, to the job whose training has a checkpoint first."""
        wait_until(lambda: list(folder.glob("runs/*/.work/[sd]*/_scratch/resume.ckpt")))
        for process in Path("/proc").glob("[0-9]*"):
            words = (process / "cmdline").read_bytes().decode().split("\0") if process.exists() else []
            if "submitit.core._submit" in words and str(folder) in words[-2]:
                os.kill(int(process.name), signal.SIGUSR2)
                preempted.append(process.name)

    thread = threading.Thread(target=preempt)
    thread.start()
    options = ("--launcher", "slurm", "--set", "study.options.cluster=local", "--set", "study.options.cpus=1")
    done = edgekd("study", str(recipe), "--out", str(folder), "--jobs", "1", *options)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert len(preempted) == 1
    check_complete(read_study(folder), folder)
    logs = [path.read_text() for path in folder.glob("runs/*/log.txt")]
    assert sorted(text.count("--- begin") for text in logs) == [1, 1, 1, 2]
    (resumed,) = (text for text in logs if text.count("--- begin") == 2)
    assert f"of {STEPS}" in resumed.partition("resumed at step ")[2].partition("\n")[0]


RAY = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from edgekd import api

recipe, out, cache = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first, second = (cluster.add_node(num_cpus=1) for _ in range(2))

def lose_a_node():
    while not list(Path(cache).glob("edgekd/ray/*/run/.work/[sd]*/_scratch/resume.ckpt")):
        time.sleep(0.1)
    cluster.remove_node(first, allow_graceful=False)

threading.Thread(target=lose_a_node, daemon=True).start()
set_ = ["study.launcher=ray", f"study.options.address={cluster.address}"]
ended = []
api.run_study(recipe, out, set_, on_run=lambda run, result, *_: ended.append(f"{run.arm} {run.seed}"))
print("ended:", *sorted(ended), sep="\\n")
"""


@pytest.mark.slow
def test_a_run_of_a_lost_node_of_ray_is_done_again(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder, cache = tmp_path / "study", tmp_path / "cache"
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "OMP_NUM_THREADS": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [os.sys.executable, "-c", RAY, str(recipe), str(folder), str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.partition("ended:\n")[2].split("\n")[:4] == ["kd 0", "kd 1", "plain 0", "plain 1"]
    check_complete(read_study(folder), folder)


QUANTIZED = """
import sys
from ray.cluster_utils import Cluster
from edgekd import api

recipe, out = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
api.run_study(recipe, out, ["study.launcher=ray", f"study.options.address={cluster.address}"])
"""


@pytest.mark.slow
def test_ray_carries_the_students_that_the_arms_of_a_study_of_quantization_start_from(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    budget = {"steps": 2, "batch_size": 4}
    tree = {
        **TINY, "engines": [{"target": "onnxruntime", "precision": "int8"}], "qat": {"train": budget},
        "student": {**TINY["student"], "train": budget}, "teacher": {**TINY["teacher"], "train": budget},
        "study": {"seeds": [0], "quantized": {"arms": {"ptq": {}, "control": {"student": "control"}}}},
    }  # fmt: skip
    path, folder, cache = tmp_path / "tiny.yaml", tmp_path / "study", tmp_path / "cache"
    path.write_text(yaml.safe_dump(tree))
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "OMP_NUM_THREADS": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [os.sys.executable, "-c", QUANTIZED, str(path), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    study = read_study(folder)
    assert [arm.name for arm in study.arms] == ["ptq", "control", "ptq, float", "control, float"]
    assert {run.status for arm in study.arms for run in arm.runs} == {"measured"}
    recipes = [yaml.safe_load(one.read_text()) for one in cache.glob("edgekd/ray/*/run/recipe.yaml")]
    given = {one["name"]: Path(one["student"]["checkpoint"]) for one in recipes if one["student"]["checkpoint"]}
    assert set(given) == {f"{tree['name']}_{arm}_seed0" for arm in ("ptq", "control")}
    start = (folder / "runs/distilled-seed0/distilled/weights.safetensors").read_bytes()
    for checkpoint in given.values():
        assert checkpoint.is_relative_to(cache)
        assert checkpoint.read_bytes() == start


def test_a_launcher_that_is_not_installed_or_unknown_is_one_line(recipe: Path, tmp_path: Path) -> None:
    done = edgekd("study", str(recipe), "--out", str(tmp_path / "study"), "--launcher", "slum")
    assert done.returncode == 2
    assert "no launcher is called 'slum'; did you mean 'slurm'?" in done.stderr
    done = edgekd("study", str(recipe), "--out", str(tmp_path / "study"), "--set", "study.options.cpu=1")
    assert "study.options.cpu: unknown option" in done.stderr

"""Stage functions that cost nothing, and a program that runs them, so that it can be killed in the middle.

    python -m tests.unit.core.fake_stages RECIPE OUT

runs `FAKE_PIPELINE` in OUT. `count` appends a line to OUT/calls for every call and counts to STEPS in its scratch
folder; where a file `kill-at` holds a number, the process sends itself SIGKILL when it has counted that far.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core.artifact import SCRATCH, Artifact, StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import Stage, StageJob
from edgekd.core.workspace import Workspace
from edgekd.errors import GateError
from edgekd.pipeline import StageRun, run_stages

STEPS = 10
HERE = "tests.unit.core.fake_stages"
FAKE_PIPELINE = [
    Stage("first", "dataset", f"{HERE}:write_size", (), ("data",)),
    Stage("slow", "checkpoint", f"{HERE}:count", ("first",), ("data", "student", "trainer")),
    Stage("group/last", "metrics", f"{HERE}:join", ("first", "slow"), ("data", "evaluate"), subject="last"),
]
SPEC = ModelSpec(
    task="semantic",
    classes=("sky", "road"),
    ignore_index=255,
    inputs=(TensorSpec("image", "float32", (1, 3, 64, 96), "image"),),
    outputs=(TensorSpec("logits", "float32", (1, 2, 64, 96), "logits"),),
    preprocess=Preprocess((64, 96), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
)


def write_size(job: StageJob) -> StageResult:
    """Write the recipe's input size."""
    _called(job, "first")
    (job.out_dir / "size.txt").write_text(str(job.recipe.data.size))
    return StageResult(details={"size": list(job.recipe.data.size)})


def count(job: StageJob) -> StageResult:
    """Count to STEPS, one file per step in the scratch folder, going on from where a killed run was."""
    _called(job, "slow")
    scratch = job.out_dir / SCRATCH
    scratch.mkdir(exist_ok=True)
    (job.out_dir / f"half-written-{os.getpid()}").write_text("junk")
    at = _root(job) / "kill-at"
    kill_at = int(at.read_text()) if at.exists() else 0
    started_at = len(list(scratch.iterdir()))
    for step in range(started_at + 1, STEPS + 1):
        (scratch / str(step)).touch()
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    (job.out_dir / f"half-written-{os.getpid()}").unlink()
    (job.out_dir / "weights").write_text("w" * job.recipe.student.train.steps)
    return StageResult(SPEC, {"started_at": started_at, "ended_at": len(list(scratch.iterdir()))})


def join(job: StageJob) -> StageResult:
    """Read both inputs."""
    _called(job, "last")
    size, weights = job.inputs["first"].file("size.txt").read_text(), job.inputs["slow"].file("weights").read_text()
    return StageResult(details={"text": f"{job.subject} {size} {len(weights)}"})


def never_the_same(_: Recipe) -> float:
    """Return what no other process sees, as a machine's facts are on several nodes."""
    return time.monotonic()


def refuse(job: StageJob) -> StageResult:
    """Let pass where a file says so."""
    _called(job, "gate")
    if not (_root(job) / "pass").exists():
        raise GateError("refused")
    return StageResult()


def hidden_section(job: StageJob) -> StageResult:
    """Read a section that no stage of this module declares."""
    return StageResult(details={"opset": job.recipe.export.opset})


def calls(out: Path) -> list[str]:
    """Return the names of the stage functions called so far in an output folder."""
    file = out / "calls"
    return file.read_text().split() if file.exists() else []


def run_fake_pipeline(recipe: Recipe, out: Path) -> dict[str, StageRun]:
    """Run FAKE_PIPELINE in an output folder."""
    with Workspace(out).locked() as workspace:
        return run_stages(recipe, workspace, FAKE_PIPELINE)


def _root(job: StageJob) -> Path:
    return job.out_dir.parents[1]  # OUT/.work/<stage>-<key>


def _called(job: StageJob, name: str) -> None:
    with open(_root(job) / "calls", "a", encoding="utf-8") as file:
        file.write(f"{name}\n")


if __name__ == "__main__":
    run_fake_pipeline(load_recipe(sys.argv[1]), Path(sys.argv[2]))


def as_data(artifact: Artifact) -> Artifact:
    """Return an artifact after adding what stages read of `data`: classes, and the fingerprints of both splits."""
    artifact.manifest["details"].update(
        classes=["sky"], splits={split: {"fingerprint": split} for split in ("train", "val")}
    )
    return artifact

"""The agreement stage: the same engine file scored on a board and here, and the limit on the difference."""

from __future__ import annotations

from pathlib import Path

from edgekd.board.sysinfo import Facts
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.stage import StageJob
from edgekd.core.task_metrics import TASKS
from edgekd.errors import GateError


def run(job: StageJob) -> StageResult:
    """Compare the score of the engine that is the stage's subject with that of the same engine here.

    Two engines that were built on two machines are different files; their scores are reported without a limit.

    Raises:
        GateError: the scores of the same file differ by more than `parity.board_score`.
    """
    there, here = (artifact for artifact in job.inputs.values() if artifact.kind == "metrics")
    engine, other = (artifact for artifact in job.inputs.values() if artifact.kind == "engine")
    task, limit = TASKS[job.recipe.task], job.recipe.parity.board_score
    scores = [artifact.details["metrics"][task.metric] for artifact in (there, here)]
    difference, is_same = abs(scores[0] - scores[1]), _files(engine) == _files(other)
    text = f"{task.title} {scores[0]:.4f} on board {engine.details['board']}, {scores[1]:.4f} here, difference {difference:.4f}"
    if is_same and difference > limit:
        raise GateError(
            f"{job.subject}: {text}, limit parity.board_score = {limit:g}; compare the versions of the runtime on both"
        )
    details: Facts = {
        "metric": task.metric,
        "board": scores[0],
        "here": scores[1],
        "difference": difference,
        "limit": limit if is_same else None,
        "text": f"{text}, limit {limit:g}"
        if is_same
        else f"{text}; no limit, because each was built on its own machine",
    }
    return StageResult(details=details)


def _files(engine: Artifact) -> dict[str, str]:
    """Return the hashes of an engine's own files, those with the name of its main file."""
    stem = Path(engine.details["engine"]).stem
    return {file["name"]: file["sha256"] for file in engine.manifest["files"] if Path(file["name"]).stem == stem}

"""Predictions of a board are those of this process, bit by bit, in shards that keep their order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.board.detection import Selection
from edgekd.board.job import Job, Json, Progress
from edgekd.core.artifact import Artifact, StageResult, publish
from edgekd.errors import ArtifactError
from edgekd.executors import predictions
from edgekd.executors.base import no_progress
from edgekd.executors.child import Child
from tests.small_nets import images, segmenter


class OnBoard(Child):
    """A board that counts its jobs; another process, as a board is."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answer: Json | None = None  # in place of the job's own

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        self.jobs.append(job)
        value = super().run_job(job, files, out_dir, log, progress)
        return value if self.answer is None else self.answer


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> OnBoard:
    board, local = OnBoard(), predictions.executor_of
    monkeypatch.setattr(predictions, "executor_of", lambda name: board if name == "pi" else local(name))
    return board


@pytest.fixture
def engine(tmp_path: Path) -> Artifact:
    """Return an ONNX Runtime engine of a small segmenter."""
    net, spec = segmenter()
    (tmp_path / "work").mkdir()
    onnx.save(net, str(tmp_path / "work/engine.onnx"))
    details = {"target": "onnxruntime", "options": {}, "engine": "engine.onnx", "board": "pi"}
    facts: Any = {"kind": "engine", "stage": "engine/x", "key": "k", "inputs": {}}
    return publish(tmp_path / "work", tmp_path / "engine", facts, StageResult(spec, details))


def test_a_board_predicts_in_shards_what_this_process_predicts(
    board: OnBoard, engine: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = images(5)
    monkeypatch.setattr(predictions, "SHARD_BYTES", 2 * shown[0].nbytes)
    here = list(predictions.predict_images(iter(shown), engine, board="local"))
    there = list(predictions.predict_images(iter(shown), engine))
    assert len(board.jobs) == 3  # 2, 2 and 1 image
    assert [one.arguments["selection"] for one in board.jobs] == [None] * 3
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_larger_than_a_shard_is_a_shard(
    board: OnBoard, engine: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "SHARD_BYTES", 1)
    assert len(list(predictions.predict_images(images(2), engine))) == len(board.jobs) == 2


def test_no_image_needs_no_job(board: OnBoard, engine: Artifact) -> None:
    assert list(predictions.predict_images([], engine)) == board.jobs == []


def test_only_engines_run_on_a_board(board: OnBoard, engine: Artifact) -> None:
    network = Artifact(engine.path, {**engine.manifest, "kind": "checkpoint"})
    with pytest.raises(ArtifactError, match="expected an engine for board pi, got an artifact of kind checkpoint"):
        next(predictions.predict_images(images(1), network))


def test_the_selection_of_detections_goes_to_the_board(board: OnBoard, engine: Artifact) -> None:
    list(predictions.predict_images(images(1), engine, Selection(min_score=0.3, most=7)))
    assert board.jobs[0].arguments["selection"] == {"min_score": 0.3, "iou": 0.6, "candidates": 1000, "most": 7}


@pytest.mark.parametrize("results", [[], ["00000.npz", "00000.npz"], None, "00000.npz", ["/etc/passwd"], [".."], [3]])
def test_a_board_that_names_other_results_is_refused(board: OnBoard, engine: Artifact, results: object) -> None:
    board.answer = {"results": results}
    with pytest.raises(ArtifactError, match="result"):
        list(predictions.predict_images(images(1), engine))


def test_a_result_is_looked_for_in_the_jobs_folder_alone(board: OnBoard, engine: Artifact, tmp_path: Path) -> None:
    np.savez(tmp_path / "stolen.npz", **{"00000": np.zeros(images(1)[0].shape[:2], np.uint8)})
    board.answer = {"results": [str(tmp_path / "stolen.npz")]}
    with pytest.raises(ArtifactError, match="out/stolen.npz: not the results of these images"):
        list(predictions.predict_images(images(1), engine))

"""Predictions of a network for images, in a session of this process or as jobs of a board."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.arguments import PredictArguments
from edgekd.board.detection import Selection
from edgekd.board.job import Job, Json
from edgekd.board.postprocess import Predictor
from edgekd.board.prediction_files import load_results, save_images
from edgekd.board.session import Session
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import LOCAL
from edgekd.errors import ArtifactError
from edgekd.executors.answers import texts_of
from edgekd.executors.base import Executor
from edgekd.executors.boards import board_of, executor_of
from edgekd.executors.inference import EngineFiles, engine_files
from edgekd.executors.logs import LOG

SHARD_BYTES = 64 << 20  # pixels per job; a lost connection costs at most one job
_IMAGES = "images.npz"


def predict_images(
    images: Iterable[np.ndarray], artifact: Artifact, selection: Selection | None = None, board: str | None = None
) -> Iterator[Any]:
    """Yield the class map or the `Detections` of each image, in order.

    Images go to a board as they are; pre-processing, engine and post-processing run there.

    Args:
        images: (H, W, 3) uint8 RGB, read when needed.
        artifact: a checkpoint, an ONNX file or an engine.
        selection: rule that selects a detector's objects; None: the default one.
        board: name of the board; None: the artifact's own.

    Raises:
        ArtifactError: the artifact holds no network, or a board's answer is not the results of these images.
        TargetError: its runtime is not installed there, or refuses the engine; errors as `Executor.run_job`.
    """
    board = board_of(artifact) if board is None else board
    if board == LOCAL:
        with executor_of(board).open_session(artifact) as session:
            yield from predict_in(session, images, selection)
        return
    if artifact.kind != "engine":
        raise ArtifactError(
            f"{artifact.path}: expected an engine for board {board}, got an artifact of kind {artifact.kind}"
        )
    yield from predict_with(images, engine_files(artifact), board, selection)


def predict_with(
    images: Iterable[np.ndarray], engine: EngineFiles, board: str, selection: Selection | None = None
) -> Iterator[Any]:
    """Yield the class map or the `Detections` of each image by an engine on a board; as `predict_images`."""
    if board == LOCAL:
        target, file = plugins.target(engine.target), engine.files[engine.engine]
        with target.session(file, engine.spec, engine.options) as session:
            yield from predict_in(session, images, selection)
        return
    executor = executor_of(board)
    for shard in _shards(images):
        yield from _of_shard(executor, engine, shard, selection)


def predict_in(session: Session, images: Iterable[np.ndarray], selection: Selection | None = None) -> Iterator[Any]:
    """Yield the class map or the `Detections` of each image by an open session."""
    predictor = Predictor(session, selection)
    return (predictor(image) for image in images)


def _shards(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield images in order, as many at a time as `SHARD_BYTES` hold, at least one."""
    shard: list[np.ndarray] = []
    for image in images:
        if shard and sum(one.nbytes for one in shard) + image.nbytes > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(image)
    if shard:
        yield shard


def _of_shard(
    executor: Executor, engine: EngineFiles, images: Sequence[np.ndarray], selection: Selection | None
) -> list[Any]:
    with TemporaryDirectory(prefix="edgekd-predict-") as text:
        folder, out = Path(text), Path(text) / "out"
        out.mkdir()
        save_images(folder / _IMAGES, images)
        arguments: PredictArguments = {
            "engine": engine.engine,
            "spec": engine.spec.to_dict(),
            "options": asdict(engine.options),
            "images": [_IMAGES],
            "selection": asdict(selection) if selection else None,
        }
        files = {**engine.files, _IMAGES: folder / _IMAGES}
        value = executor.run_job(Job("predict", engine.target, arguments), files, out, folder / LOG)
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        most = (selection or Selection()).most
        return load_results(out / _result_of(value), engine.spec.task, sizes, most)


def _result_of(value: Json) -> str:
    """Return the name of the only result file; BoardAnswerError if there is not exactly one."""
    return Path(texts_of(value, "results", 1)[0]).name

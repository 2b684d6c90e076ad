"""The evaluate stage: scores one artifact (a network or the engine itself) on the scored split, at label resolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.detection import MIN_SCORE, Detections, Selection
from edgekd.board.run_masks import packed
from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.recipe import LOCAL, Recipe
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.errors import DataError
from edgekd.evaluate import detection, semantic
from edgekd.evaluate.image_counts import PixelCounts
from edgekd.evaluate.image_hash import ImageHash
from edgekd.evaluate.image_scores import FILE as IMAGE_SCORES
from edgekd.evaluate.image_scores import ImageScores
from edgekd.evaluate.predictions import Prediction, keeping, predict_split
from edgekd.executors.boards import board_of, executor_of, machine_on
from edgekd.executors.predictions import predict_images

PICTURES = "pictures.npz"
Scored = tuple[dict[str, Any], dict[str, np.ndarray]]  # facts for the manifest, arrays for the pictures


def run(job: StageJob) -> StageResult:
    """Score the artifact named by the stage's subject; keep its results for a few images for the report.

    Raises:
        DataError: the network's classes are not the data set's.
    """
    recipe = job.recipe
    artifact = job.inputs[job.subject]
    dataset = open_split(recipe, recipe.data.val)
    # Trained networks keep the names that classes had then; a renamed class is no reason to train again.
    is_same = artifact.spec.classes == dataset.classes
    if not is_same and (artifact.kind != "checkpoint" or len(artifact.spec.classes) != len(dataset.classes)):
        raise DataError(
            f"{job.subject}: the network has classes {artifact.spec.classes}, the data set {dataset.classes}; train it again"
        )
    indices = range(min(recipe.evaluate.images or len(dataset), len(dataset)))
    pictured = picture_indices(len(indices), recipe.evaluate.pictures)
    kept: dict[int, Any] = {}
    most = recipe.evaluate.max_detections
    selection = Selection.of_most(most)
    predicted = predict_split(lambda images: predict_images(images, artifact, selection), dataset, indices)
    with closing(predicted), progress_bar("scoring") as progress:
        seen = ImageHash()
        predictions = seen.hashing(keeping(predicted, pictured, kept, progress, len(indices)))
        if recipe.task == "semantic":
            details, arrays = _semantic(predictions, dataset, kept, job.out_dir)
        else:
            coco_files = job.out_dir if recipe.evaluate.coco_files else None
            result = detection.score(dataset.classes, predictions, recipe.task == "instance", coco_files, most)
            assert result.matches is not None  # `score` has them
            _write(result.matches, job.out_dir)
            details, arrays = result.facts(), _pictures(kept)
    np.savez_compressed(job.out_dir / PICTURES, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
    board = board_of(artifact)
    details |= {} if board == LOCAL else {"machine": machine_on(board)}
    names = [dataset.name(i) for i in pictured]
    details |= {"images_sha256": seen.hexdigest()}
    return StageResult(details={"of": job.subject, "split": recipe.data.val, "pictured": names, **details})


def place(recipe: Recipe) -> dict[str, Any]:
    """Return the external state of the scores of the recipe's only engine (JSON): its board's hardware and runtime.

    Runtimes choose arithmetic by the hardware: OpenVINO computes in float16 on some ARM cores.
    """
    (engine,) = recipe.engines
    there = executor_of(engine.board).identity()
    names = plugins.target(engine.target).info.distributions
    return {"hardware": there.hardware, "runtimes": {name: there.runtimes.get(name) for name in names}}


def _semantic(
    predictions: Iterator[Prediction[np.ndarray]], dataset: DenseDataset, kept: dict[int, np.ndarray], out_dir: Path
) -> Scored:
    result = semantic.score(dataset.classes, predictions)
    assert result.image_counts is not None  # `score` has them
    _write(PixelCounts(result.image_counts), out_dir)
    details = {
        "num_images": result.num_images,
        "metrics": result.metrics,
        "iou_per_class": result.iou_per_class,
        "boundary_iou_per_class": result.boundary_iou_per_class,
        "counts": result.counts,
        "absent_classes": list(result.absent_classes),
        "confusion": result.confusion.tolist(),
    }
    return details, {str(i): class_map for i, class_map in kept.items()}


def _write(images: ImageScores, out_dir: Path) -> None:
    np.savez_compressed(out_dir / IMAGE_SCORES, **images.arrays())  # type: ignore[arg-type]  # keys never shadow its flags


def _pictures(kept: dict[int, Detections]) -> dict[str, np.ndarray]:
    return {name: part for index, found in kept.items() for name, part in _pictured_objects(index, found).items()}


def _pictured_objects(index: int, found: Detections) -> dict[str, np.ndarray]:
    """Return the arrays of the objects that the report draws, those with a score worth showing."""
    shown = found.scores >= MIN_SCORE
    parts = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores}
    arrays = {f"{index}/{name}": part[shown] for name, part in parts.items()}
    if found.masks is not None:
        arrays |= {
            f"{index}/{name}": part for name, part in packed(found.masks, np.flatnonzero(shown).tolist()).items()
        }
    return arrays


def picture_indices(available: int, wanted: int) -> list[int]:
    """Return `wanted` indices spread evenly over the split, the same for every artifact."""
    count = min(available, wanted)
    return [round((i + 0.5) * available / count - 0.5) for i in range(count)]

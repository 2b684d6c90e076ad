"""The evaluate stage: scores one artifact, the engine itself, on the scored split at label resolution."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.session import Session
from edgekd.core.artifact import StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.session import open_session
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.predictions import MIN_SCORE
from edgekd.data.splits import open_split
from edgekd.errors import DataError
from edgekd.evaluate import detection, semantic

PICTURES = "pictures.npz"
Scored = tuple[dict[str, Any], dict[str, np.ndarray]]  # what the manifest says, what the pictures need


def run(job: StageJob) -> StageResult:
    """Score the artifact named by the stage's part; keep what it says of a few images for the report.

    Raises:
        DataError: the network's classes are not the data set's.
    """
    recipe = job.recipe
    artifact = job.inputs[job.part]
    dataset = open_split(recipe, recipe.data.val)
    if artifact.spec.classes != tuple(dataset.classes):
        raise DataError(f"{job.part}: the network has classes {artifact.spec.classes}, the data set {dataset.classes}")
    indices = range(min(recipe.evaluate.images or len(dataset), len(dataset)))
    pictured = picture_indices(len(indices), recipe.evaluate.pictures)
    with open_session(artifact) as session:
        if recipe.task == "semantic":
            details, arrays = _semantic(session, dataset, list(indices), pictured)
        else:
            coco_files = job.out_dir if recipe.evaluate.coco_files else None
            details, arrays = _objects(session, dataset, list(indices), pictured, coco_files)
    np.savez_compressed(job.out_dir / PICTURES, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
    names = [dataset.name(i) for i in pictured]
    return StageResult(details={"of": job.part, "split": recipe.data.val, "pictured": names, **details})


def _semantic(session: Session, dataset: DenseDataset, indices: list[int], pictured: list[int]) -> Scored:
    with progress_bar("scoring") as progress:
        result, kept = semantic.evaluate(session, dataset, indices=indices, keep=pictured, progress=progress)
    details = {
        "num_images": result.num_images,
        "metrics": result.metrics,
        "iou_per_class": result.iou_per_class,
        "boundary_iou_per_class": result.boundary_iou_per_class,
        "counts": result.counts,
        "absent_classes": list(result.absent_classes),
        "confusion": result.confusion.tolist(),
    }
    return details, {str(i): kept[i] for i in pictured}


def _objects(
    session: Session, dataset: DenseDataset, indices: list[int], pictured: list[int], coco_files: Path | None
) -> Scored:
    with progress_bar("scoring") as progress:
        result, kept = detection.evaluate(session, dataset, indices, pictured, progress, coco_files)
    arrays: dict[str, np.ndarray] = {}
    for i in pictured:
        shown = kept[i].scores >= MIN_SCORE
        masks = kept[i].masks
        parts = {"boxes": kept[i].boxes, "labels": kept[i].labels, "scores": kept[i].scores}
        arrays |= {f"{i}/{name}": part[shown] for name, part in parts.items()}
        if masks is not None:
            arrays[f"{i}/mask_bits"] = np.packbits(masks.only(shown).whole(), axis=2)  # of all pictures, an eighth
    return asdict(result), arrays


def picture_indices(available: int, wanted: int) -> list[int]:
    """Return `wanted` indices spread evenly over the split, the same for every artifact."""
    count = min(available, wanted)
    return [round((i + 0.5) * available / count - 0.5) for i in range(count)]

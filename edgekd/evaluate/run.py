"""The evaluate stage: scores one artifact, the engine itself, on the scored split at label resolution."""

from __future__ import annotations

import numpy as np

from edgekd.core.artifact import StageResult
from edgekd.core.session import open_session
from edgekd.core.stage import StageJob
from edgekd.data.open import open_split
from edgekd.errors import DataError
from edgekd.evaluate.semantic import evaluate

PICTURES = "pictures.npz"


def run(job: StageJob) -> StageResult:
    """Score the artifact named by the stage's part; keep its class maps of a few images for the report.

    Raises:
        DataError: the network's classes are not the data set's.
    """
    recipe = job.recipe
    artifact = job.inputs[job.part]
    dataset = open_split(recipe.data, recipe.data.val)
    if artifact.spec.classes != tuple(dataset.classes):
        raise DataError(f"{job.part}: the network has classes {artifact.spec.classes}, the data set {dataset.classes}")
    indices = range(min(recipe.evaluate.images or len(dataset), len(dataset)))
    pictured = picture_indices(len(indices), recipe.evaluate.pictures)
    with open_session(artifact) as session:
        result, kept = evaluate(session, dataset, indices=list(indices), keep=pictured)
    maps = {str(i): kept[i] for i in pictured}
    np.savez_compressed(job.out_dir / PICTURES, **maps)  # type: ignore[arg-type]  # keys never shadow its flags
    return StageResult(
        details={
            "of": job.part,
            "split": recipe.data.val,
            "num_images": result.num_images,
            "metrics": result.metrics,
            "iou_per_class": result.iou_per_class,
            "boundary_iou_per_class": result.boundary_iou_per_class,
            "counts": result.counts,
            "absent_classes": list(result.absent_classes),
            "pictured": [dataset.name(i) for i in pictured],
            "confusion": result.confusion.tolist(),
        }
    )


def picture_indices(available: int, wanted: int) -> list[int]:
    """Return `wanted` indices spread evenly over the split, the same for every artifact."""
    count = min(available, wanted)
    return [round((i + 0.5) * available / count - 0.5) for i in range(count)]

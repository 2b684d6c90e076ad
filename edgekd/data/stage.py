"""The data stage: checks both splits and records their classes, sizes and fingerprints."""

from __future__ import annotations

import logging

import numpy as np

from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.data.annotated import AnnotatedDataset, repairs_of
from edgekd.data.base import IGNORE_INDEX, DenseDataset
from edgekd.data.check import IS_255_A_CLASS
from edgekd.data.drawn import DrawnDataset
from edgekd.data.fingerprint import fingerprint
from edgekd.data.paired import PairedDataset
from edgekd.data.splits import check_splits, open_split, shared_images

log = logging.getLogger(__name__)


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Return the fingerprint of each split, by name. They are in the cache key of `data`: a changed file runs all stages again."""
    return {split: fingerprint(open_split(recipe, split), split) for split in (recipe.data.train, recipe.data.val)}


def run(job: StageJob) -> StageResult:
    """Check both splits; record their classes, sizes and fingerprints, and the repairs made on opening them.

    Raises:
        DataError: as `check_splits`; or a file's header shows that the sample cannot be read.
    """
    data = job.recipe.data
    train, val = open_split(job.recipe, data.train), open_split(job.recipe, data.val)
    shared = shared_images(train, val)
    for warning in (*check_splits(job.recipe, train, val, shared), *_first_masks(val, data.val)):
        log.warning("%s", warning)
    splits = {}
    for split, dataset in ((data.train, train), (data.val, val)):
        _check_files(dataset)
        repairs = repairs_of(dataset)
        for what, count in repairs.items():
            log.info("split %s: %d %s", split, count, what)
        splits[split] = {"images": len(dataset), "fingerprint": fingerprint(dataset, split), "repairs": repairs}
    return StageResult(
        details={
            "classes": list(train.classes),
            "format": data.format,
            "splits": splits,
            "in_both_splits": len(shared),
        }
    )


def training_part(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part of the artifact `data` that training depends on: classes and training split, not the scored split."""
    return {"classes": data.details["classes"], "fingerprint": data.details["splits"][recipe.data.train]["fingerprint"]}


def _first_masks(dataset: DenseDataset, split: str, count: int = 8) -> list[str]:
    """Return a warning when the first masks have one class only, and ignored pixels: masks of 0 and 255."""
    if not isinstance(dataset, PairedDataset):
        return []
    counts = np.zeros(256, np.int64)
    for index in range(min(count, len(dataset))):
        counts += np.bincount(dataset.load(index).mask.ravel(), minlength=256)
    present = np.flatnonzero(counts[: len(dataset.classes)])
    if len(present) != 1 or not counts[IGNORE_INDEX]:
        return []
    return [f"split {split!r}, its first masks, class {dataset.classes[present[0]]!r}: {IS_255_A_CLASS}"]


def _check_files(dataset: DenseDataset) -> None:
    """Check the header of every sample before hours of training; DataError for one that cannot be read."""
    if isinstance(dataset, PairedDataset | AnnotatedDataset | DrawnDataset):
        for index in range(len(dataset)):
            dataset.check_files(index)

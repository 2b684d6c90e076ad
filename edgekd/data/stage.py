"""The data stage: records what both splits hold, so that a changed file runs all anew."""

from __future__ import annotations

import logging

import numpy as np

from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.data.annotated import AnnotatedDataset, repairs_of
from edgekd.data.base import IGNORE_INDEX, DenseDataset
from edgekd.data.check import IS_255_A_CLASS
from edgekd.data.fingerprint import fingerprint
from edgekd.data.paired import PairedDataset
from edgekd.data.splits import open_split, shared_images, together

log = logging.getLogger(__name__)


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Return the identity of both splits' files: in the cache key of `data`, so a changed file runs all anew."""
    return {split: fingerprint(open_split(recipe, split), split) for split in (recipe.data.train, recipe.data.val)}


def run(job: StageJob) -> StageResult:
    """Record what both splits hold, and what opening them repaired.

    Raises:
        DataError: as `together`, or a sample that cannot be read, as far as headers tell.
    """
    data = job.recipe.data
    train, val = open_split(job.recipe, data.train), open_split(job.recipe, data.val)
    shared = shared_images(train, val)
    for finding in (*together(job.recipe, train, val, shared), *_first_masks(val, data.val)):
        log.warning("%s", finding)
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


def learned_from(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return what of the artifact `data` decides what is learned: the classes and the training split, not the scored one."""
    return {"classes": data.details["classes"], "fingerprint": data.details["splits"][recipe.data.train]["fingerprint"]}


def _first_masks(dataset: DenseDataset, split: str, count: int = 8) -> list[str]:
    """Return a line when all labelled pixels of the first masks are of one class and others are ignored: a mask of 0 and 255."""
    if not isinstance(dataset, PairedDataset):
        return []
    counts = np.zeros(256, np.int64)
    for index in range(min(count, len(dataset))):
        counts += np.bincount(dataset.load(index).mask.ravel(), minlength=256)
    found = np.flatnonzero(counts[: len(dataset.classes)])
    if len(found) != 1 or not counts[IGNORE_INDEX]:
        return []
    return [f"split {split!r}, its first masks, class {dataset.classes[found[0]]!r}: {IS_255_A_CLASS}"]


def _check_files(dataset: DenseDataset) -> None:
    """Check that every sample can be read, as far as headers tell, before hours go into it; DataError."""
    if isinstance(dataset, PairedDataset | AnnotatedDataset):
        for index in range(len(dataset)):
            dataset.check_files(index)

"""The data stage: reads both splits, refuses unusable data, records classes, fingerprints and findings."""

from __future__ import annotations

import logging
from dataclasses import asdict

from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.data.check import check_data
from edgekd.data.fingerprint import fingerprint
from edgekd.data.splits import open_split

log = logging.getLogger(__name__)


def state_of_data(recipe: Recipe) -> dict[str, object]:
    """Return the classes, and the fingerprint of each split by name; they are in the cache key of `data`.

    A changed file or a renamed class runs the stage again, and then the stages that depend on what changed.
    """
    opened = {split: open_split(recipe, split) for split in (recipe.data.train, recipe.data.val)}
    fingerprints: dict[str, object] = {split: fingerprint(dataset, split) for split, dataset in opened.items()}
    return fingerprints | {"classes": {split: list(dataset.classes) for split, dataset in opened.items()}}


def run(job: StageJob) -> StageResult:
    """Check both splits as `edgekd data check` does; record their classes, sizes, fingerprints, repairs and findings.

    Raises:
        DataError: a sample cannot be read, or the data is unusable: see the errors of `check_data`.
    """
    checked = check_data(job.recipe)
    checked.require_no_error()
    for finding in checked.all_findings:
        log.warning("data: %s", finding.text)
    splits = {}
    for report in checked.reports:
        for what, count in (report.repairs or {}).items():
            log.info("split %s: %d %s", report.split, count, what)
        splits[report.split] = {
            "images": report.num_images,
            "fingerprint": fingerprint(checked.datasets[report.split], report.split),
            "repairs": report.repairs,
        }
    return StageResult(
        details={
            "classes": list(checked.reports[0].classes),
            "format": job.recipe.data.format,
            "splits": splits,
            "in_both_splits": len(checked.shared),
            "findings": [asdict(finding) for finding in checked.all_findings],
        }
    )


# The parts that other stages depend on; their cache keys hold these instead of the whole artifact. Class names change no
# training.


def training_part(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part that training depends on: the number of classes, the training split, and which classes a flip swaps."""
    classes = data.details["classes"]
    pairs = [[classes.index(name) for name in pair if name in classes] for pair in recipe.data.augment.flip_pairs]
    return {"classes": len(classes), "flip_pairs": pairs, **calibration_part(data, recipe)}


def calibration_part(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part that calibration depends on: the training split."""
    return {"fingerprint": data.details["splits"][recipe.data.train]["fingerprint"]}


def scoring_part(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part that export, scoring and bench depend on: the names of the classes, and the scored split."""
    return {"fingerprint": data.details["splits"][recipe.data.val]["fingerprint"], **classes_part(data, recipe)}


def classes_part(data: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part that checks before the training depend on: the names of the classes."""
    return {"classes": data.details["classes"]}

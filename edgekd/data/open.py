"""Opens the data set of a recipe, and the stage that pins it down: `data`."""

from __future__ import annotations

from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Data, Recipe, plugin_options
from edgekd.core.stage import StageJob
from edgekd.data.base import DenseDataset
from edgekd.data.fingerprint import fingerprint
from edgekd.errors import DataError


def open_split(data: Data, split: str) -> DenseDataset:
    """Return one split of a recipe's data set; DataError when it cannot be opened or is empty."""
    module = plugins.load("formats", data.format)
    dataset: DenseDataset = module.open_dataset(
        plugin_options("formats", data.format, data.options, "data.options"), split
    )
    if not len(dataset):
        raise DataError(f"{data.format}: split {split!r} has no images; expected at least one")
    return dataset


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Return the identity of both splits' files: in the cache key of `data`, so a changed file runs all anew."""
    return {split: fingerprint(open_split(recipe.data, split), split) for split in (recipe.data.train, recipe.data.val)}


def run(job: StageJob) -> StageResult:
    """Record what both splits hold."""
    data = job.recipe.data
    train, val = open_split(data, data.train), open_split(data, data.val)
    if train.classes != val.classes:
        raise DataError(
            f"splits {data.train!r} and {data.val!r} have different classes: {train.classes} and {val.classes}"
        )
    shared = {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    return StageResult(
        details={
            "classes": list(train.classes),
            "format": data.format,
            "splits": {
                split: {"images": len(dataset), "fingerprint": fingerprint(dataset, split)}
                for split, dataset in ((data.train, train), (data.val, val))
            },
            "same_name_in_both_splits": len(shared),
        }
    )

"""Opens the data set of a recipe, and the stage that pins it down: `data`."""

from __future__ import annotations

import logging

from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import plugin_options
from edgekd.core.stage import StageJob
from edgekd.data.annotated import repairs_of
from edgekd.data.base import DenseDataset
from edgekd.data.fingerprint import fingerprint
from edgekd.errors import DataError, RecipeError

log = logging.getLogger(__name__)


def open_split(recipe: Recipe, split: str) -> DenseDataset:
    """Return one split of a recipe's data set, as its task needs it.

    Raises:
        RecipeError: the format has no labels for the task.
        DataError: it cannot be opened or is empty.
    """
    data = recipe.data
    module = plugins.load("formats", data.format)
    options = plugin_options("formats", data.format, data.options, "data.options")
    wanted = "open_dataset" if recipe.task == "semantic" else "open_objects"
    if not hasattr(module, wanted):
        able = [name for name in plugins.names("formats") if hasattr(plugins.load("formats", name), wanted)]
        raise RecipeError(f"data.format {data.format!r} has no labels for task {recipe.task!r}; {', '.join(able)} have")
    dataset: DenseDataset
    if recipe.task == "semantic":
        dataset = module.open_dataset(options, split)
    else:
        dataset = module.open_objects(options, split, recipe.task == "instance")
    if not len(dataset):
        raise DataError(f"{data.format}: split {split!r} has no images; expected at least one")
    return dataset


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Return the identity of both splits' files: in the cache key of `data`, so a changed file runs all anew."""
    return {split: fingerprint(open_split(recipe, split), split) for split in (recipe.data.train, recipe.data.val)}


def run(job: StageJob) -> StageResult:
    """Record what both splits hold, and what opening them repaired."""
    data = job.recipe.data
    train, val = open_split(job.recipe, data.train), open_split(job.recipe, data.val)
    if train.classes != val.classes:
        raise DataError(
            f"splits {data.train!r} and {data.val!r} have different classes: {train.classes} and {val.classes}"
        )
    shared = {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    splits = {}
    for split, dataset in ((data.train, train), (data.val, val)):
        repairs = repairs_of(dataset)
        for what, count in repairs.items():
            log.info("split %s: %d %s", split, count, what)
        splits[split] = {"images": len(dataset), "fingerprint": fingerprint(dataset, split), "repairs": repairs}
    return StageResult(
        details={
            "classes": list(train.classes),
            "format": data.format,
            "splits": splits,
            "same_name_in_both_splits": len(shared),
        }
    )

"""Opens the data set of a recipe, and the stage that pins it down: `data`."""

from __future__ import annotations

import filecmp
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from edgekd.core import plugins
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import plugin_options
from edgekd.core.stage import StageJob
from edgekd.data.annotated import NO_MASK, AnnotatedDataset, repairs_of
from edgekd.data.base import IGNORE_INDEX, DenseDataset
from edgekd.data.check import IS_255_A_CLASS
from edgekd.data.fingerprint import fingerprint
from edgekd.data.paired import PairedDataset
from edgekd.errors import DataError, RecipeError

log = logging.getLogger(__name__)


_opened: ContextVar[dict[tuple[str, ...], DenseDataset] | None] = ContextVar("_opened", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """Open each split once within this block, however often it is asked for: COCO's training split takes most of a minute.

    The files are taken not to change meanwhile; what changed before is seen by the next block.
    """
    before = _opened.set({})
    try:
        yield
    finally:
        _opened.reset(before)


def forget(split: str) -> None:
    """Let go of an opened split that will not be asked for soon: COCO's annotations take 2 GB."""
    opened = _opened.get()
    for key in [key for key in opened or () if key[-1] == split]:
        assert opened is not None
        del opened[key]


def open_split(recipe: Recipe, split: str) -> DenseDataset:
    """Return one split of a recipe's data set, as its task needs it; the same one within `opened_once`.

    Raises:
        RecipeError: the format has no labels for the task.
        DataError: it cannot be opened, is empty, or has one class for a segmenter.
    """
    opened, data = _opened.get(), recipe.data
    if opened is None:
        return _open(recipe, split)
    key = (data.format, json.dumps(data.options, sort_keys=True, default=repr), recipe.task, split)
    if key not in opened:
        opened[key] = _open(recipe, split)
    return opened[key]


def _open(recipe: Recipe, split: str) -> DenseDataset:
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
    if recipe.task == "semantic" and len(dataset.classes) < 2:
        raise DataError(
            f"{data.format}: expected two classes or more, got {len(dataset.classes)}; the background is a class, too: "
            "name it, and label it in the masks"
        )
    if not len(dataset):
        raise DataError(f"{data.format}: split {split!r} has no images; expected at least one")
    return dataset


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


def together(recipe: Recipe, train: DenseDataset, val: DenseDataset, shared: list[str]) -> list[str]:
    """Return what there is to know of both splits before anything is trained, one line each; shared: `shared_images`.

    Raises:
        DataError: they have different classes, or one has no object to learn or to find.
    """
    names = recipe.data.train, recipe.data.val
    if train.classes != val.classes:
        raise DataError(
            f"splits {names[0]!r} and {names[1]!r} have different classes: {train.classes} and {val.classes}"
        )
    for split, dataset in zip(names, (train, val), strict=True):
        if isinstance(dataset, AnnotatedDataset) and not dataset.object_count:
            left_out = ", ".join(f"{count} {what}" for what, count in dataset.repairs.items())
            hint = "; without masks, use task: detection" if NO_MASK in dataset.repairs else ""
            raise DataError(
                f"split {split!r} has no object in its {len(dataset)} images{f' ({left_out})' * bool(left_out)}, "
                f"expected at least one{hint}"
            )
    if not shared:
        return []
    return [
        f"{len(shared)} of the {len(val)} images of split {names[1]!r} are in split {names[0]!r}, too, the first is "
        f"{shared[0]}: scores will be too good; take them out of one"
    ]


def shared_images(train: DenseDataset, val: DenseDataset) -> list[str]:
    """Return the names of the images that both splits have: of the same name and the same bytes."""
    places = {train.name(i): train.files(i) for i in range(len(train))}
    return [
        name
        for name, files in ((val.name(i), val.files(i)) for i in range(len(val)))
        if files and (other := places.get(name)) and _same(other[0], files[0])
    ]


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # one cannot be read: reading it as an image says so
        return False


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

"""Opens the splits of a recipe's data set, shares them within a run, and finds images in both splits."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from edgekd.core import plugins
from edgekd.core.recipe import Recipe
from edgekd.data.base import WHOLE, DenseDataset
from edgekd.data.parts import part_of, whole_of
from edgekd.errors import DataError, RecipeError

_opened: ContextVar[dict[tuple[str, ...], DenseDataset] | None] = ContextVar("_opened", default=None)


@contextmanager
def shared_splits() -> Iterator[None]:
    """Open each split once within this block: COCO's training split takes most of a minute.

    The block assumes that the files do not change meanwhile. The next block opens them again.
    """
    before = _opened.set({})
    try:
        yield
    finally:
        _opened.reset(before)


def release_split(split: str) -> None:
    """Free the memory of a split that is not needed soon: COCO's annotations take 2 GB. Opening it again reads it again."""
    opened = _opened.get()
    for key in [key for key in opened or () if key[-1] in (split, WHOLE)]:
        assert opened is not None
        del opened[key]


def open_split(recipe: Recipe, split: str) -> DenseDataset:
    """Open one split of a recipe's data set, with the labels that its task needs; within `shared_splits` only once.

    Args:
        recipe: names the format and, for a fraction or a list, both splits.
        split: a split of the format, a fraction, or a list of images, as in `data.train` and `data.val`.

    Raises:
        RecipeError: the format has no labels for the task, or a list of images is not possible.
        DataError: it cannot be opened, is empty, or has one class for a segmenter; as `part_of`.
    """
    data = recipe.data
    whole = whole_of(data, split)
    if whole is None:
        return _shared(recipe, "", split, lambda: _open(recipe, split))

    def divide() -> DenseDataset:
        return part_of(_shared(recipe, "", whole, lambda: _open(recipe, whole)), data, split)

    return _shared(recipe, f"{data.train}/{data.val}/{data.split_seed}", split, divide)


def _shared(recipe: Recipe, divided: str, split: str, make: Callable[[], DenseDataset]) -> DenseDataset:
    """Return the data set that `make` opens. Within `shared_splits` one data, task, division and split opens it once."""
    opened, data = _opened.get(), recipe.data
    if opened is None:
        return make()
    key = (data.format, json.dumps(dict(data.options), sort_keys=True, default=repr), recipe.task, divided, split)
    if key not in opened:
        opened[key] = make()
    return opened[key]


def _open(recipe: Recipe, split: str) -> DenseDataset:
    data = recipe.data
    module = plugins.load("formats", data.format)
    options = data.format_options
    if recipe.task not in module.TASKS:
        others = [name for name in plugins.names("formats") if recipe.task in plugins.load("formats", name).TASKS]
        raise RecipeError(
            f"data.format {data.format!r} has no labels for task {recipe.task!r}; use {', '.join(others)}"
        )
    dataset: DenseDataset
    if recipe.task == "semantic":
        dataset = module.open_dataset(options, split)
    else:
        dataset = module.open_objects(options, split, recipe.task == "instance")
    if recipe.task == "semantic" and len(dataset.classes) < 2:
        raise DataError(
            f"{data.format}: expected two classes or more, got {len(dataset.classes)}; the background is also a class: "
            "name it, and label it in the masks"
        )
    if not len(dataset):
        raise DataError(f"{data.format}: split {split!r} has no images; expected at least one")
    return dataset


def shared_images(train: DenseDataset, val: DenseDataset) -> list[str]:
    """Return the names of the images that are in both splits: the same name and the same bytes."""
    files_by_name = {train.name(i): train.files(i) for i in range(len(train))}
    return [
        name
        for name, files in ((val.name(i), val.files(i)) for i in range(len(val)))
        if files and (other := files_by_name.get(name)) and _has_same_bytes(other[0], files[0])
    ]


def _has_same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # reading the image reports it
        return False

"""Format `folder`: a folder of images, a folder of index masks, and a list of class names.

root/images/<split>/0001.jpg      any common suffix; subfolders are fine
root/masks/<split>/0001.png       paired by name; pixel value = index of the class, 255 = ignore; or see `labels`, `colors`
root/classes.txt                  one class per line, in index order
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.images import read_color_mask, read_mask
from edgekd.data.paired import PairedDataset, checked_classes, label_table, named_classes, pairs_by_name
from edgekd.errors import DataError

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Where the data set lies, and how masks name classes."""

    root: str = option(..., "Folder of the data set.", is_path=True)
    images: str = option("images/{split}", "Image folder below `root`; `{split}` stands for the split's name.")
    masks: str = option("masks/{split}", "Mask folder below `root`; `{split}` stands for the split's name.")
    classes: tuple[str, ...] | str = option(
        "classes.txt",
        "Class names in index order, or a text file below `root` with one name per line.",
        names_classes=True,
    )
    labels: dict[int, str] = option(
        {},
        "Class name of each stored value, for masks that do not store indices: `{0: background, 255: crack}`. Class "
        "indices follow the stored values; `classes` is not read.",
        names_classes=True,
    )
    colors: dict[str, str | None] = option(
        {},
        'Class name of each colour, for masks that store colours: `{"#804080": road, "#000000": null}`. Class indices '
        "follow this order; pixels of a colour with `null` have no label. `classes` is not read.",
        names_classes=True,
    )
    ignore_index: int = option(
        IGNORE_INDEX, "Stored value of pixels without a label, at most 65535 (16-bit masks). Loading turns it into 255."
    )
    image_ending: str = option("", "End of image names that mask names do not share, before the suffix.")
    mask_ending: str = option(
        "", "End of mask names that image names do not share: `_mask` pairs `0001.jpg` with `0001_mask.png`."
    )


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files of one split.

    Raises:
        DataError: missing folder, empty split, file without partner, bad class list, colour or `ignore_index`.
    """
    root = Path(options.root)
    for key, template in (("images", options.images), ("masks", options.masks)):
        if "{split}" not in template:
            raise DataError(f"data.options.{key} is {template!r}: expected {{split}} in it, or all splits are one")
    if options.labels and options.colors:
        raise DataError("data.options has labels and colors: name stored values or colours, not both")
    classes, table, expected, read = _by_color(options) if options.colors else _by_value(options)
    pairs = pairs_by_name(
        root / options.images.replace("{split}", split),
        root / options.masks.replace("{split}", split),
        options.image_ending,
        options.mask_ending,
    )
    return PairedDataset(classes, pairs, table, expected, read)


# Class names, label table, valid stored labels and mask reader: the arguments of `PairedDataset` beside the pairs.
_Stored = tuple[tuple[str, ...], np.ndarray, str, Callable[[Path], np.ndarray]]


def _by_value(options: Options) -> _Stored:
    stored = {value: name.strip() for value, name in sorted(options.labels.items())}
    if stored:
        classes = checked_classes(dict.fromkeys(stored.values()), "data.options.labels")
    else:
        classes = named_classes(Path(options.root), options.classes)
        stored = dict(enumerate(classes))
    if not 0 <= options.ignore_index <= 65535:
        raise DataError(f"data.options.ignore_index is {options.ignore_index}, expected 0..65535; 255 is usual")
    if not 0 <= min(stored) <= max(stored) <= 65535:
        raise DataError(f"data.options.labels: expected stored values 0..65535, got {min(stored)}..{max(stored)}")
    # 255 in `labels` is a class: it is listed because it would be ignored otherwise.
    if options.ignore_index in stored and not (options.labels and options.ignore_index == IGNORE_INDEX):
        taken = stored[options.ignore_index]
        raise DataError(
            f"data.options.ignore_index {options.ignore_index} is also the index of class {taken!r}; use 255"
        )
    mapping = {options.ignore_index: IGNORE_INDEX} | {value: classes.index(name) for value, name in stored.items()}
    expected = ", ".join(map(str, stored)) if options.labels else f"0..{len(classes) - 1}"
    if options.ignore_index not in stored:
        expected += f", or {options.ignore_index} to ignore"
    return classes, label_table(mapping, max(256, max(mapping) + 1)), expected, read_mask


def _by_color(options: Options) -> _Stored:
    named = {_packed(color): None if name is None else name.strip() for color, name in options.colors.items()}
    if len(named) < len(options.colors):
        raise DataError("data.options.colors: a colour is listed twice; remove one")
    classes = checked_classes(dict.fromkeys(name for name in named.values() if name is not None), "data.options.colors")
    colors = sorted(named)
    names = [named[color] for color in colors]
    mapping = {i: IGNORE_INDEX if name is None else classes.index(name) for i, name in enumerate(names)}
    read = partial(read_color_mask, colors=np.array(colors))
    return classes, label_table(mapping, len(colors)), "one of data.options.colors", read


def _packed(color: str) -> int:
    """Return 0xRRGGBB of `#rrggbb`."""
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise DataError(f'data.options.colors: expected colours like "#804080", got {color!r}')
    return int(color[1:], 16)

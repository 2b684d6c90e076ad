"""Format `folder`: a folder of images, a folder of masks, and a list of class names.

root/images/<split>/0001.jpg      any common suffix; subfolders are fine
root/masks/<split>/0001.png       paired by name; pixel value = index of the class, 255 = ignore; or see `labels`, `colors`
root/classes.txt                  one class per line, in index order

`images: images`, `masks: masks` without `{split}` is one folder for all: write `train: all`, and a fraction or a list in
`val`. Images and masks may share a folder, and names may differ in their endings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX, WHOLE
from edgekd.data.class_lists import named_classes
from edgekd.data.paired import PairedDataset
from edgekd.data.pairing import pairs_by_name
from edgekd.data.stored import COLORS, IGNORED, LABELS, Stored, by_color, by_index, by_value
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
    labels: dict[int, str | None] | str = option({}, LABELS, names_classes=True)
    colors: dict[str, str | None] | str = option({}, COLORS, names_classes=True)
    ignore_index: int | tuple[int, ...] = option(IGNORE_INDEX, IGNORED)
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
        if "{split}" not in template and split != WHOLE:
            raise DataError(
                f"data.options.{key} is {template!r} for split {split!r}: expected {{split}} in it, or all splits are one; "
                f"to divide one folder, write `train: {WHOLE}` and `val: 0.2`"
            )
        folder = root / template.replace("{split}", split)
        if "{split}" in template and split == WHOLE and root.is_dir() and not folder.is_dir():
            one = template.replace("/{split}", "").replace("{split}", key)
            raise DataError(
                f"data.train is {WHOLE!r}, a folder without splits, and data.options.{key} is {template!r}, expected the one "
                f"folder's name without {{split}}, e.g. {key}: {one}"
            )
    stored = _stored(options, root, split)
    pairing = pairs_by_name(
        root / options.images.replace("{split}", split),
        root / options.masks.replace("{split}", split),
        options.image_ending,
        options.mask_ending,
        has_endings=True,
    )
    return stored.dataset(pairing.pairs, pairing.repairs)


def _stored(options: Options, root: Path, split: str) -> Stored:
    if options.labels and options.colors:
        raise DataError("data.options has labels and colors: expected one of the two")
    if options.colors:
        return by_color(root, options.colors, split)
    if options.labels:
        return by_value(root, options.labels, split, options.ignore_index)
    return by_index(named_classes(root, options.classes, ("labels", "colors")), options.ignore_index)

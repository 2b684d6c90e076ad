"""Format `ade20k`: the scene parsing benchmark ADEChallengeData2016, 150 classes.

    root/images/<training|validation>/<name>.jpg
    root/annotations/<training|validation>/<name>.png     0 = other, 1..150 = classes
    root/objectInfo150.txt                                class names

Labels become `x[x==0]=255; x-=1; x[x==254]=255` (mmsegmentation's reduce_zero_label): 0..149, 255 ignored.
The splits `train` and `val` are other names for `training` and `validation`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgekd.board.options import option
from edgekd.data.base import IGNORE_INDEX
from edgekd.data.paired import Notes, PairedDataset, checked_classes, label_table, read_lines
from edgekd.data.pairing import pairs_by_name
from edgekd.errors import DataError

TASKS = ("semantic",)

NUM_CLASSES = 150
_SPLITS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Options:
    """Where the data set lies."""

    root: str = option(..., "Folder `ADEChallengeData2016`.", is_path=True)
    classes: tuple[str, ...] = option(
        (),
        "Class names in index order. Empty: the names in `objectInfo150.txt`, or `class_0` to `class_149` where that file "
        "is absent.",
    )


def open_dataset(options: Options, split: str) -> PairedDataset:
    """Pair the files of one split.

    Raises:
        DataError: missing folder, empty split, file without partner, or a bad class list.
    """
    root, folder = Path(options.root), _SPLITS.get(split, split)
    pairing = pairs_by_name(root / "images" / folder, root / "annotations" / folder)
    classes = checked_classes(options.classes, "data.options.classes") if options.classes else _class_names(root)
    mapping = {index + 1: index for index in range(len(classes))} | {0: IGNORE_INDEX, 255: IGNORE_INDEX}
    expected = f"1..{len(classes)}, or 0 or 255 to ignore"
    notes = Notes(repairs=pairing.repairs)
    return PairedDataset(classes, pairing.pairs, label_table(mapping), expected, notes=notes)


def _class_names(root: Path) -> tuple[str, ...]:
    """Return each class's first synonym in objectInfo150.txt, or all synonyms where two classes share the first."""
    path = root / "objectInfo150.txt"
    if not path.is_file():
        return tuple(f"class_{index}" for index in range(NUM_CLASSES))
    lines = [line.split("\t") for line in read_lines(path, "class list") if line]
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    columns = [column.strip().lower() for column in header]
    if "name" not in columns or len(rows) != NUM_CLASSES or any(len(row) != len(header) for row in rows):
        raise DataError(
            f"{path}: expected a header with Name and {NUM_CLASSES} tab-separated rows, got {len(rows)} rows"
        )
    full = [row[columns.index("name")].strip() for row in rows]
    first = [re.split("[,;]", name)[0].strip() for name in full]
    return checked_classes((s if first.count(s) == 1 else f for s, f in zip(first, full, strict=True)), str(path))

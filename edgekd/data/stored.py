"""Encodings of classes in mask files: by index, by named values, or by colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgekd.data.base import IGNORE_INDEX
from edgekd.data.class_lists import stored_colors, stored_values
from edgekd.data.images import read_color_mask, read_mask
from edgekd.data.paired import REFUSED, Notes, Pair, PairedDataset, checked_classes, label_table
from edgekd.errors import DataError

# Descriptions of the options that formats share.
LABELS = (
    "Class name of each stored value, for masks that do not store indices: `{0: background, 255: crack}`, `null` for pixels "
    "without a label; or a file below `root` that lists them: Roboflow's `_classes.csv`, labelme's `labels.txt`, a table or "
    "JSON. `{split}` in its path stands for the split's name. Class indices follow the stored values; `classes` is not read."
)
COLORS = (
    'Class name of each colour, for masks that store colours: `{"#804080": road, "#000000": null}`; or a file below `root` '
    "that lists them: CVAT's `labelmap.txt`, CamVid's `label_colors.txt`, a table or JSON. `{split}` in its path stands for "
    "the split's name. Class indices follow this order; pixels of a colour with `null` have no label. `classes` is not read."
)
IGNORED = (
    "Stored value of pixels without a label, or several, `[0, 255]`; at most 65535 (16-bit masks). Loading turns them into "
    "255. Masks of colours have `null` in `colors` instead."
)
_HINT = "; if {labels} means unlabelled, add it to data.options.ignore_index, e.g. "


@dataclass(frozen=True)
class Stored:
    """Class names, label table, valid stored labels, mask reader and notes: arguments of `PairedDataset` beside the pairs."""

    classes: tuple[str, ...]
    table: np.ndarray
    expected: str
    read: Callable[[Path], np.ndarray] = read_mask
    notes: Notes = field(default_factory=Notes)

    def dataset(self, pairs: Sequence[Pair], repairs: Mapping[str, int] | None = None) -> PairedDataset:
        """Return the data set of pairs whose masks store their classes so."""
        notes = replace(self.notes, repairs=repairs or {})
        return PairedDataset(self.classes, pairs, self.table, self.expected, self.read, notes)


def by_index(classes: tuple[str, ...], ignored: int | tuple[int, ...]) -> Stored:
    """Return how masks of class indices store them.

    Raises:
        DataError: an ignored value out of range, or one that is a class.
    """
    return _by_value(classes, dict(enumerate(classes)), _values(ignored), f"0..{len(classes) - 1}")


def by_value(root: Path, labels: Mapping[int, str | None] | str, split: str, ignored: int | tuple[int, ...]) -> Stored:
    """Return how masks store the values of an option `labels`.

    Raises:
        DataError: as `by_index` and `checked_classes`; a list that cannot be read, or a value out of range.
    """
    given = stored_values(root / labels.replace("{split}", split)) if isinstance(labels, str) else labels
    named = {value: name.strip() for value, name in sorted(given.items()) if name is not None}
    classes = checked_classes(dict.fromkeys(named.values()), "data.options.labels")
    unlabelled = tuple(
        value for value, name in given.items() if name is None and value >= 0
    )  # labelme stores -1 as 255
    if not 0 <= min(named) <= max(named) <= 65535:
        raise DataError(f"data.options.labels: expected stored values 0..65535, got {min(named)}..{max(named)}")
    # 255 in `labels` is a class: it is listed because it would be ignored otherwise.
    values = [one for one in _values(ignored) if not (one == IGNORE_INDEX and one in named)]
    expected = ", ".join(map(str, named)) if len(named) < 20 else f"{len(named)} values {min(named)}..{max(named)}"
    stored = _by_value(classes, named, (*values, *unlabelled), expected)
    return _from_file(stored, labels)


def by_color(root: Path, colors: Mapping[str, str | None] | str, split: str) -> Stored:
    """Return how masks store the colours of an option `colors`.

    Raises:
        DataError: as `checked_classes`; a list that cannot be read, or a colour that is none or is listed twice.
    """
    given = stored_colors(root / colors.replace("{split}", split)) if isinstance(colors, str) else colors
    named = {_packed(color): None if name is None else name.strip() for color, name in given.items()}
    if len(named) < len(given):
        raise DataError("data.options.colors: a colour is listed twice; remove one")
    classes = checked_classes(dict.fromkeys(name for name in named.values() if name is not None), "data.options.colors")
    order = sorted(named)
    names = [named[color] for color in order]
    mapping = {i: IGNORE_INDEX if name is None else classes.index(name) for i, name in enumerate(names)}
    read = partial(read_color_mask, colors=np.array(order))
    stored = Stored(classes, label_table(mapping, len(order)), "one of data.options.colors", read)
    return _from_file(stored, colors, order)


def _from_file(stored: Stored, option: object, colors: Sequence[int] = ()) -> Stored:
    """Return how masks store classes with the content of a list in a file, which the recipe does not hold.

    Names are left out: a renamed class is no other data.
    """
    if not isinstance(option, str):
        return stored
    indices = [(label, int(index)) for label, index in enumerate(stored.table) if index != REFUSED]
    return replace(stored, notes=replace(stored.notes, digest=repr((list(colors), indices))))


def _values(ignored: int | tuple[int, ...]) -> tuple[int, ...]:
    values = ignored if isinstance(ignored, tuple) else (ignored,)
    for value in values:
        if not 0 <= value <= 65535:
            raise DataError(f"data.options.ignore_index is {value}, expected 0..65535; 255 is usual")
    return values


def _by_value(classes: tuple[str, ...], named: Mapping[int, str], ignored: tuple[int, ...], expected: str) -> Stored:
    for value in ignored:
        if value in named:
            raise DataError(
                f"data.options.ignore_index {value} is also the index of class {named[value]!r}; use 255, or take the class "
                f"out: data.options.labels: {{{', '.join(f'{v}: {n}' for v, n in named.items() if v != value)}}}"[:600]
            )
    mapping = dict.fromkeys(ignored, IGNORE_INDEX) | {value: classes.index(name) for value, name in named.items()}
    if ignored:
        expected += f", or {' or '.join(map(str, ignored))} to ignore"
    example = f"[{', '.join(map(str, ignored))}{', ' * bool(ignored)}{{labels}}]"
    return Stored(
        classes, label_table(mapping, max(256, max(mapping) + 1)), expected, read_mask, Notes(_HINT + example)
    )


def _packed(color: str) -> int:
    """Return 0xRRGGBB of `#rrggbb`."""
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise DataError(f'data.options.colors: expected colours like "#804080", got {color!r}')
    return int(color[1:], 16)

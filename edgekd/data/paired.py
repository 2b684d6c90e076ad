"""Data sets of image files paired with mask files: reading the pairs, mapping stored labels to class indices.

A format of this kind gives `PairedDataset` a list of `Pair`s, a label table and the class names.
"""

from __future__ import annotations

import copy
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekd.data.base import IGNORE_INDEX, Sample
from edgekd.data.images import read_image, read_mask
from edgekd.errors import DataError, did_you_mean, one_line

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})
REFUSED = -1  # entry of a label table for a stored value that no class has


@dataclass(frozen=True)
class Pair:
    """One image file with its mask file; `name` is unique in the split."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Notes:
    """Notes on the labels of a data set, for messages, reports and the fingerprint.

    hint: advice for labels without a class; `{labels}` is replaced by them.
    repairs: number of repairs that the format has made, by kind.
    digest: content of files that define the stored labels, for the fingerprint.
    """

    hint: str = ""
    repairs: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""


class PairedDataset:
    """Images with masks on disk; implements `DenseDataset`.

    Args:
        classes: class names in index order.
        pairs: the files.
        table: (N,) int16, stored label -> class index, 255 or `REFUSED`; see `label_table`.
        expected: the valid stored labels, for messages: "0..10, or 255 to ignore".
        read: reads one mask file as (H, W) integers.
        notes: hint, repairs and digest.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        pairs: Sequence[Pair],
        table: np.ndarray,
        expected: str,
        read: Callable[[Path], np.ndarray] = read_mask,
        notes: Notes = Notes(),
    ) -> None:
        self.classes, self.repairs, self.digest = classes, dict(notes.repairs), notes.digest
        self._hint = notes.hint
        self._pairs, self._table, self._expected, self._read = tuple(pairs), table, expected, read

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        return self._pairs[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return self._pairs[index].image, self._pairs[index].mask

    @property
    def reads_indices(self) -> bool:
        """Whether the stored indices of mask files are the labels, not their colours."""
        return self._read is read_mask

    def only(self, indices: Sequence[int]) -> PairedDataset:
        """Return the data set of some of the pairs."""
        part = copy.copy(self)
        part._pairs = tuple(self._pairs[index] for index in indices)
        return part

    def load(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            DataError: a file is damaged or refused, the sizes differ, or a label belongs to no class.
        """
        pair = self._pairs[index]
        image = read_image(pair.image)
        try:
            raw = self._read(pair.mask)
        except DataError as exc:
            swapped = f"; {pair.image.name} looks like a mask: are images and masks swapped?"
            raise DataError(f"{exc}{swapped * _is_mask_like(pair.image)}") from exc
        _check_sizes(pair, (image.shape[0], image.shape[1]), (raw.shape[0], raw.shape[1]))
        mask = remap(raw, self._table)
        if mask is None:
            raise DataError(f"{pair.mask}: {self._unknown_label(raw)}")
        return Sample(pair.name, image, mask)

    def _unknown_label(self, raw: np.ndarray) -> str:
        labels, counts = np.unique(raw, return_counts=True)
        bad = [(int(v), int(n)) for v, n in zip(labels, counts, strict=True) if _entry(self._table, int(v)) == REFUSED]
        more = f" (and {len(bad) - 1} more such labels)" if len(bad) > 1 else ""
        label, pixels = bad[0]
        on = f"{pixels} pixel{'s' if pixels > 1 else ''}{more}"
        hint = self._hint.replace("{labels}", ", ".join(str(value) for value, _ in bad[:5]))
        return (
            f"label {label} on {on} is none of the {len(self.classes)} classes, expected {self._expected}; "
            f"fix the mask or the class list{hint}"
        )


def _is_mask_like(path: Path) -> bool:
    """Whether a file could be read as a mask of few classes, which photos cannot."""
    try:
        return len(np.unique(read_mask(path))) <= 64
    except DataError:
        return False


def _check_sizes(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Check that the (height, width) of image and mask are the same; DataError."""
    if image != mask:
        turned = mask == image[::-1]
        hint = "the image has an EXIF orientation that the mask lacks, or the mask is rotated" if turned else "fix one"
        raise DataError(
            f"{pair.mask}: mask is {mask[0]}x{mask[1]} (height x width), "
            f"image {pair.image.name} is {image[0]}x{image[1]}; {hint}"
        )


def label_table(mapping: Mapping[int, int], size: int = 256) -> np.ndarray:
    """Return a (size,) int16 table, stored label -> class index or 255; labels not in `mapping` are `REFUSED`."""
    table = np.full(size, REFUSED, dtype=np.int16)
    for stored, index in mapping.items():
        table[stored] = index
    return table


def remap(raw: np.ndarray, table: np.ndarray) -> np.ndarray | None:
    """Map stored labels (H, W) to class indices (H, W) uint8; None when the table refuses one of them."""
    if raw.dtype == np.uint8 and len(table) >= 256:
        mapped = table[raw]
    else:
        inside = (raw >= 0) & (raw < len(table))
        mapped = np.where(inside, table[np.where(inside, raw, 0)], REFUSED)
    if mapped.size and mapped.min() < 0:
        return None
    return mapped.astype(np.uint8)


def _entry(table: np.ndarray, label: int) -> int:
    return int(table[label]) if 0 <= label < len(table) else REFUSED


def checked_classes(names: Iterable[str], source: str) -> tuple[str, ...]:
    """Check class names and return them, stripped.

    Raises:
        DataError: no name, an empty one, one that cannot be shown, one that occurs twice, or more than 255 (255 is the
            ignored label).
    """
    classes = tuple(name.strip() for name in names)
    if not classes:
        raise DataError(f"{source}: no class names, expected one per line")
    if len(classes) > IGNORE_INDEX:
        raise DataError(f"{source}: {len(classes)} classes, expected at most {IGNORE_INDEX}; merge some")
    for index, name in enumerate(classes):
        if not name:
            raise DataError(f"{source}: class {index} has an empty name; remove the empty line or name the class")
        if not is_showable(name):
            raise DataError(f"{source}: class {index} has control characters in its name, {name!a:.60}; rename it")
        if name in classes[:index]:
            raise DataError(
                f"{source}: class {name!r} is listed twice, as {classes.index(name)} and {index}; rename one"
            )
    return classes


def is_showable(text: str) -> bool:
    """Whether text holds no control character, no line break and no lone surrogate, which no terminal can show."""
    return all(unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def read_lines(path: Path, what: str) -> list[str]:
    """Read the lines of a UTF-8 text file, stripped, without empty ones at the end; DataError when it is not readable."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except FileNotFoundError as exc:
        raise DataError(f"{what} {path} does not exist; check data.options.root") from exc
    except (OSError, ValueError) as exc:
        raise DataError(f"{what} {path} is not readable as UTF-8 text ({one_line(exc)}); save it as UTF-8") from exc


def read_split_list(folder: Path, split: str) -> list[str]:
    """Read the image names in `folder/<split>.txt`.

    Raises:
        DataError: no such split, an empty one, or a name that occurs twice, cannot be shown or is a path outside the folder.
    """
    path = folder / f"{split}.txt"
    if not folder.parent.parent.is_dir():  # not even the data set's folder
        require_folder(folder, "folder of split lists")
    known = [entry.stem for entry in folder.glob("*.txt")]
    if not path.is_file():
        raise DataError(
            f"no split {split!r}: {path} does not exist{did_you_mean(split, known)}; "
            "write it, one image's name without suffix per line"
        )
    names = Counter(line.expandtabs(1) for line in read_lines(path, "split list") if line)
    if not names:
        raise DataError(f"split {split!r} is empty: {path} lists no image; add names, or use another split")
    for name, count in names.items():
        if count > 1:
            raise DataError(f"{path}: {name!r} is listed twice; remove one")
        if not is_showable(name):
            raise DataError(f"{path}: a name has control characters, {name!a:.60}; fix the list")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{path}: expected names below the data set's folder, got {name[:200]!r}; fix the list")
    return list(names)


def require_folder(path: Path, what: str) -> None:
    """Check that a path is a folder; DataError, which names the nearest existing folder and its folders, when it is not."""
    if path.is_dir():
        return
    if path.exists():
        raise DataError(f"{what} {path} is a file, expected a folder; check data.options")
    nearest = next((parent for parent in path.parents if parent.is_dir()), None)
    present = sorted(entry.name for entry in nearest.iterdir() if entry.is_dir())[:8] if nearest else []
    hint = f"; {nearest} holds {', '.join(present) or 'no folders'}" if nearest else ""
    raise DataError(f"{what} {path} does not exist{hint}; check data.options and the split name")


def listed_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Check that the files of all pairs exist; DataError with the first and the number of missing ones."""
    for what, paths in (("image", [p.image for p in pairs]), ("mask", [p.mask for p in pairs])):
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(pairs)} listed {what}s are missing, the first is {missing[0]}; add or unlist them"
            )
    return list(pairs)


def images_below(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted; linked folders once, hidden ones not.

    Raises:
        DataError: a folder cannot be read, or a name cannot be shown.
    """
    images: list[Path] = []
    seen: set[str] = set()  # real paths of folders: a link to an outer folder would be followed without end
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and os.path.realpath(Path(parent, name)) not in seen
        ]
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:
                continue
            path = Path(parent, name)
            if not is_showable(path.relative_to(folder).as_posix()):
                raise DataError(f"{folder}: the name of a file cannot be shown, {str(path)!a:.200}; rename it")
            images.append(path)
    return sorted(images)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror}); make it readable") from error

"""Splits that a data set does not define: a seeded fraction of the images, or the user's list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgekd.core.recipe import Data
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.base import WHOLE, DenseDataset, Sample
from edgekd.data.drawn import DrawnDataset
from edgekd.data.paired import SUFFIXES, PairedDataset, read_lines
from edgekd.errors import DataError, RecipeError


def fraction_of(split: str) -> float | None:
    """Return the fraction that a split's name is, between 0 and 1; None for any other name."""
    try:
        fraction = float(split)
    except ValueError:
        return None
    return fraction if 0 < fraction < 1 else None


def is_list(split: str) -> bool:
    """Whether a split's name is a file with a list of images."""
    return split.endswith(".txt")


def whole_of(data: Data, split: str) -> str | None:
    """Return the format's split that a recipe's split is a part of; None if the format defines the split itself."""
    if is_list(split):
        return WHOLE
    if fraction_of(split) is not None:
        return data.train
    if split == data.train and fraction_of(data.val) is not None:
        return split
    return WHOLE if split == data.train == WHOLE and is_list(data.val) else None


def part_of(whole: DenseDataset, data: Data, split: str) -> DenseDataset:
    """Return the images of `whole` that a split of the recipe has; `whole` is the split `whole_of(data, split)`.

    Raises:
        DataError: a list cannot be read or names no image, or one image is to be divided.
        RecipeError: a list of a data set without a folder.
    """
    if is_list(split):
        return _only(whole, _listed(whole, data, split))
    scored = set(_listed(whole, data, data.val) if is_list(data.val) else _drawn(whole, data))
    is_scored = split == data.val
    return _only(whole, [i for i in range(len(whole)) if (i in scored) == is_scored])


def _drawn(whole: DenseDataset, data: Data) -> list[int]:
    """Return the images of the fraction: those with the smallest hashes of seed and name, at least one and not all."""
    fraction, count = fraction_of(data.val), len(whole)
    assert fraction is not None
    if count < 2:
        raise DataError(
            f"data.val is {data.val}: split {data.train!r} has {count} image, expected two or more to divide; add images"
        )
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"{data.split_seed}/{whole.name(i)}".encode()).digest())
    return order[: min(max(1, round(fraction * count)), count - 1)]


def _listed(whole: DenseDataset, data: Data, split: str) -> list[int]:
    """Return the images that a list names, in the order of the data set."""
    root = data.options.get("root")
    if not isinstance(root, str):
        raise RecipeError(
            f"data: {split!r} is a list of images, which format {data.format!r} cannot have; name a split"
        )
    path = Path(root) / split
    rows = [(number, row) for number, row in enumerate(read_lines(path, "image list"), 1) if row]
    if not rows:
        raise DataError(f"{path}: no image in the list, expected one name per line; add names")
    by_ending: dict[str, list[int]] = {}
    for index in range(len(whole)):
        by_ending.setdefault(PurePosixPath(_without_suffix(whole.name(index))).name, []).append(index)
    chosen = set()
    for number, row in rows:
        wanted = PurePosixPath(_without_suffix(row.replace("\\", "/")))
        near = by_ending.get(wanted.name, [])
        found = [index for index in near if whole.name(index) == row]
        found = found or [index for index in near if _ends_in(whole, index, wanted)]
        if len(found) != 1:
            raise DataError(
                f"{path}, row {number}: {row[:200]!r} is the name of {len(found)} images, expected one, such as "
                f"{whole.name(0)!r}; fix the row"
            )
        if found[0] in chosen:
            raise DataError(f"{path}, row {number}: {row[:200]!r} is listed twice; remove one")
        chosen.add(found[0])
    return sorted(chosen)


def _ends_in(dataset: DenseDataset, index: int, wanted: PurePosixPath) -> bool:
    """Whether an image's name, or its file's path, ends in the wanted parts, ignoring the suffix."""
    count = len(wanted.parts)
    paths = [_without_suffix(dataset.name(index)), *(_without_suffix(f.as_posix()) for f in dataset.files(index)[:1])]
    return any(PurePosixPath(path).parts[-count:] == wanted.parts for path in paths)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def _only(whole: DenseDataset, indices: Sequence[int]) -> DenseDataset:
    if isinstance(whole, AnnotatedDataset | DrawnDataset | PairedDataset):
        return whole.only(indices)
    return _Part(whole, indices)


class _Part:
    """Some samples of a data set of any kind; implements `DenseDataset`."""

    def __init__(self, whole: DenseDataset, indices: Sequence[int]) -> None:
        self.classes, self._whole, self._indices = whole.classes, whole, indices

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._whole.name(self._indices[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return self._whole.files(self._indices[index])

    def load(self, index: int) -> Sample:
        return self._whole.load(self._indices[index])

"""Facts about every sample of a split, read once: sizes, labels, objects, palettes, orientations; no pixels."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from math import ceil, floor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from edgekd.board.files import cache_folder, write_atomic
from edgekd.board.masks import Masks
from edgekd.core.machine_facts import package_version
from edgekd.core.progress import Progress
from edgekd.core.recipe import Recipe
from edgekd.core.third_party import code_hashes, hash_of_code
from edgekd.data.annotated import AnnotatedDataset, repairs_of
from edgekd.data.base import IGNORE_INDEX, DenseDataset, Instances, Sample
from edgekd.data.drawn import DrawnDataset
from edgekd.data.fingerprint import fingerprint
from edgekd.data.images import stored_orientation
from edgekd.data.paired import SUFFIXES, PairedDataset
from edgekd.errors import DataError

MAX_THREADS = 8
_TURNED_BY_90 = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


@dataclass(frozen=True)
class SplitFacts:
    """Facts of the samples 0 ... N - 1 of a split. A sample that could not be read has size 0 and no other facts.

    sizes: (N, 2) int64 height, width.
    labels: (R, 3) int64 rows sample, class, count: pixels, 255 for ignored ones; of data sets of objects, the objects that
        are trained on and scored.
    sides: (M, 3) float64 rows sample, height, width of the box of each such object, in pixels of the image.
    ignored: (N,) int64 crowds and difficult objects.
    apart: (N,) int64 objects whose mask has no pixel in their box.
    unchecked: (N,) bool: the image has an EXIF orientation that no size of its labels confirms.
    palettes: (P, 3) int64 rows sample, stored index, 0xRRGGBB, of the labels that occur in a mask with a palette; only of masks
        whose stored indices are the labels.
    has_objects: whether objects are labelled, not pixels.
    repairs: number of repairs of labels, by kind.
    errors: sample and message of those that could not be read.
    """

    sizes: np.ndarray
    labels: np.ndarray
    sides: np.ndarray
    ignored: np.ndarray
    apart: np.ndarray
    unchecked: np.ndarray
    palettes: np.ndarray
    has_objects: bool
    repairs: dict[str, int]
    errors: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def is_readable(self) -> np.ndarray:
        """(N,) bool: the samples that could be read."""
        return self.sizes[:, 0] > 0

    def counts(self, num_classes: int) -> np.ndarray:
        """Return (N, K) int64 pixels or objects per sample and class, without ignored ones."""
        table = np.zeros((len(self), num_classes), np.int64)
        rows = self.labels[self.labels[:, 1] < num_classes]
        table[rows[:, 0], rows[:, 1]] = rows[:, 2]
        return table

    def total(self, label: int) -> int:
        """Return the pixels or objects of a class, or the ignored pixels for 255."""
        return int(self.labels[self.labels[:, 1] == label, 2].sum())


@dataclass
class _Found:
    """Facts of one sample; the fields are those of `SplitFacts` without the sample's number."""

    size: tuple[int, int] = (0, 0)
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    ignored: int = 0
    apart: int = 0
    unchecked: bool = False
    palette: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    has_objects: bool = False
    error: str = ""


def read_facts(dataset: DenseDataset, progress: Progress | None = None) -> SplitFacts:
    """Load every sample of a split and return the facts; samples that cannot be read are in `errors`, not raised.

    progress: called with (samples done, samples in all) after each sample, in order.
    """
    found: list[_Found] = []
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for one in pool.map(lambda index: _examined(dataset, index), range(len(dataset))):
            found.append(one)
            if progress is not None:
                progress(len(found), len(dataset))
    return SplitFacts(
        sizes=np.array([one.size for one in found], np.int64).reshape(-1, 2),
        labels=_numbered([one.labels for one in found]),
        sides=_numbered([one.sides for one in found]),
        ignored=np.array([one.ignored for one in found], np.int64),
        apart=np.array([one.apart for one in found], np.int64),
        unchecked=np.array([one.unchecked for one in found], bool),
        palettes=_numbered([one.palette for one in found]),
        has_objects=any(one.has_objects for one in found),
        repairs=repairs_of(dataset),  # some are counted while masks are drawn
        errors=tuple((number, one.error) for number, one in enumerate(found) if one.error),
    )


def remembered_facts(recipe: Recipe, dataset: DenseDataset, split: str, progress: Progress | None = None) -> SplitFacts:
    """Return the facts of a recipe's split, from the user's cache folder where the same data was read before.

    The cache key covers the split's fingerprint, the task, the format with its options, and the code that reads them.
    Facts of a split with an unreadable sample are not kept.

    Raises:
        DataError: a file vanished while its fingerprint was taken.
    """
    try:
        file = _cache_file(recipe, dataset, split)
    except DataError:  # a file that cannot be read: reading all of them lists it among the errors
        return read_facts(dataset, progress)
    if file is not None and (facts := _stored(file)) is not None and len(facts) == len(dataset):
        return facts
    facts = read_facts(dataset, progress)
    if file is not None and not facts.errors:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no cache
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, _packed(facts))
    return facts


def file_name(dataset: DenseDataset, index: int) -> str:
    """Return the name of a sample with the suffix of its image file; generated samples have none."""
    name, files = dataset.name(index), dataset.files(index)
    return str(PurePosixPath(name).parent / files[0].name) if files else name


def labels_objects(sample: Sample) -> bool:
    """Whether a sample comes from a data set of objects, without a class map."""
    return sample.instances is not None and bool((sample.mask == IGNORE_INDEX).all())


def _examined(dataset: DenseDataset, index: int) -> _Found:
    try:
        sample = dataset.load(index)
        found = _objects(sample.instances) if sample.instances and labels_objects(sample) else _pixels(sample.mask)
        found.size = (sample.mask.shape[0], sample.mask.shape[1])
        found.unchecked = _is_unchecked(dataset, index, found)
        found.palette = _palette(dataset, index)
    except DataError as exc:
        return _Found(error=str(exc))
    return found


def _pixels(mask: np.ndarray) -> _Found:
    counts = np.bincount(mask.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    return _Found(labels=np.stack([present, counts[present]], axis=1))


def _objects(objects: Instances) -> _Found:
    counted = ~objects.is_ignored
    counts = np.bincount(objects.labels[counted], minlength=1)
    present = np.flatnonzero(counts)
    boxes = objects.boxes_xyxy[counted].astype(np.float64)
    return _Found(
        labels=np.stack([present, counts[present]], axis=1),
        sides=(boxes[:, 2:] - boxes[:, :2])[:, ::-1],
        ignored=int((~counted).sum()),
        apart=0 if objects.masks is None else _apart(objects.masks, objects.boxes_xyxy),
        has_objects=True,
    )


def _apart(masks: Masks, boxes: np.ndarray) -> int:
    """Return the number of masks without a pixel in their box, of boxes (N, 4)."""
    count = 0
    corners = masks.corners[:, :2].tolist()
    for (left, top, right, bottom), (x1, y1), part in zip(boxes.tolist(), corners, masks.parts, strict=True):
        rows = slice(max(0, floor(top) - y1), max(0, ceil(bottom) - y1))
        columns = slice(max(0, floor(left) - x1), max(0, ceil(right) - x1))
        count += not part[rows, columns].any()
    return count


def _is_unchecked(dataset: DenseDataset, index: int, found: _Found) -> bool:
    """Return whether image and labels could have different orientations that their sizes do not reveal.

    An orientation that exchanges height and width is confirmed by labels that give the size of the upright image.
    """
    files = dataset.files(index)
    if not files or (found.has_objects and not found.labels.size and not found.ignored):
        return False
    orientation = stored_orientation(files[0])
    own = stored_orientation(files[1]) if len(files) > 1 and files[1].suffix.lower() in SUFFIXES else 1
    if orientation == own:
        return False
    is_sized = len(files) > 1 or (isinstance(dataset, AnnotatedDataset | DrawnDataset) and dataset.gives_size(index))
    changes_size = (orientation in _TURNED_BY_90) != (own in _TURNED_BY_90) and found.size[0] != found.size[1]
    return not (is_sized and changes_size)


def _palette(dataset: DenseDataset, index: int) -> np.ndarray:
    """Return (P, 2) int64 rows stored index, 0xRRGGBB of the labels in a palette mask whose indices are the labels."""
    nothing = np.zeros((0, 2), np.int64)
    if not isinstance(dataset, PairedDataset) or not dataset.reads_indices:
        return nothing
    path = dataset.files(index)[1]
    with contextlib.suppress(OSError, ValueError), Image.open(path) as image:  # `load` has read it
        if image.mode != "P":
            return nothing
        colors = np.array(image.getpalette("RGB"), np.int64).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
        present = np.flatnonzero(np.bincount(np.asarray(image).ravel(), minlength=256)[: len(colors)])
        return np.stack([present, colors[present]], axis=1)
    return nothing


def _numbered(parts: list[np.ndarray]) -> np.ndarray:
    """Return the rows of all samples below each other, the sample's number in front."""
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows = np.concatenate(parts) if parts else np.zeros((0, 2))
    return np.column_stack([numbers.astype(rows.dtype), rows])


def _cache_file(recipe: Recipe, dataset: DenseDataset, split: str) -> Path | None:
    """Return the file that keeps the facts of a split; None for users without a home."""
    cache, data = cache_folder(), recipe.data
    if cache is None:
        return None
    content = {
        "edgekd": [package_version("edgekd"), hash_of_code("edgekd.data")],
        "split": [recipe.task, fingerprint(dataset, split)],
        "format": [data.format, data.options.in_keys("formats", data.format)],
        "code": code_hashes(recipe, ("data",)),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()
    return cache / "facts" / f"{digest}.npz"


_ARRAYS = ("sizes", "labels", "sides", "ignored", "apart", "unchecked", "palettes")
assert {*_ARRAYS, "has_objects", "repairs", "errors"} == {one.name for one in fields(SplitFacts)}


def _packed(facts: SplitFacts) -> bytes:
    rest = json.dumps({"has_objects": facts.has_objects, "repairs": facts.repairs})
    with io.BytesIO() as file:
        arrays: dict[str, np.ndarray] = {name: getattr(facts, name) for name in _ARRAYS}
        np.savez_compressed(file, rest=np.array(rest), **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
        return file.getvalue()


def _stored(file: Path) -> SplitFacts | None:
    """Return the facts in a file; None where there are none, or a damaged file."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return SplitFacts(**{name: archive[name] for name in _ARRAYS}, **json.loads(str(archive["rest"])))
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None

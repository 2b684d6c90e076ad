"""The check of a split: reads every sample once, lists the bad files and counts the classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgekd.core.progress import Progress
from edgekd.data.annotated import repairs_of
from edgekd.data.base import IGNORE_INDEX, DenseDataset, Sample
from edgekd.errors import DataError

MAX_THREADS = 8
IS_255_A_CLASS = (
    "one class is labelled and all other pixels are ignored, as in a mask of 0 and 255; if both are classes, use format "
    "`folder` with data.options.labels, e.g. {0: background, 255: crack}"
)


@dataclass(frozen=True)
class CheckReport:
    """The result of checking one split. Statistics run over the images that could be read.

    Attributes:
        split: its name.
        classes: class names in index order.
        num_images: images of the split, readable or not.
        pixel_counts: labelled pixels per class; zeros where objects are labelled.
        object_counts: objects per class, crowds not counted; empty where pixels are labelled.
        image_counts: images in which the class occurs, per class.
        ignored_fraction: ignored pixels / all pixels, in [0, 1].
        min_size, max_size: smallest and largest (height, width), each side on its own; (0, 0) when none is readable.
        errors: one line per bad file.
        warnings: one line per finding that does not stop a run.
    """

    split: str
    classes: tuple[str, ...]
    num_images: int
    pixel_counts: tuple[int, ...]
    image_counts: tuple[int, ...]
    ignored_fraction: float
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    object_counts: tuple[int, ...] = ()

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Share of each class in the labelled pixels; zeros when there are none."""
        total = sum(self.pixel_counts)
        return tuple(count / total if total else 0.0 for count in self.pixel_counts)

    def text(self, max_errors: int = 100) -> str:
        """Return the report as lines for a terminal: images, a table of classes, warnings, at most `max_errors` errors."""
        errors = [f"  error: {error}" for error in self.errors[:max_errors]]
        if len(self.errors) > max_errors:
            errors.append(f"  and {len(self.errors) - max_errors} more errors")
        if not self.num_images:
            return "\n".join([f"split {self.split}:", *errors])
        width = max(len(name) for name in (*self.classes, "class"))
        sizes = " to ".join(f"{h}x{w}" for h, w in sorted({self.min_size, self.max_size}))
        head = f"split {self.split}: {self.num_images} images, {len(self.errors)} bad; height x width {sizes}; "
        if self.object_counts:
            lines = [
                f"{head}{sum(self.object_counts)} objects",
                f"  {'class':>{width + 4}}  {'objects':>7}  images",
            ]
            amounts = [f"{count:>7}" for count in self.object_counts]
        else:
            lines = [
                f"{head}{self.ignored_fraction:.1%} of the pixels are ignored",
                f"  {'class':>{width + 4}}  {'pixels':>7}  images",
            ]
            amounts = [f"{part:>7.2%}" for part in self.class_fractions]
        rows = zip(self.classes, amounts, self.image_counts, strict=True)
        lines += [f"  {i:>3} {name:>{width}}  {amount}  {images:>6}" for i, (name, amount, images) in enumerate(rows)]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines + errors)


@dataclass(frozen=True)
class _Finding:
    name: str
    counts: np.ndarray  # (256,) int64 pixels per mask value, or objects per class
    size: tuple[int, int]
    error: str = ""
    has_objects: bool = False
    crowds: int = 0


def check_dataset(dataset: DenseDataset, split: str, progress: Progress | None = None) -> CheckReport:
    """Load every sample of a split and return the report; bad files are in the report, not raised.

    Args:
        dataset: the opened split.
        split: its name.
        progress: called with (images done, images in all) after each image, in order.
    """
    findings = []
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for finding in pool.map(lambda index: _examine(dataset, index), range(len(dataset))):
            findings.append(finding)
            if progress is not None:
                progress(len(findings), len(dataset))
    repairs = [f"{count} {what}" for what, count in repairs_of(dataset).items()]
    return _summary(dataset.classes, split, findings, repairs)


def class_shares(dataset: DenseDataset, split: str, progress: Progress | None = None) -> list[float]:
    """Return the share of each class in the labelled pixels of a split; every image has the same weight, as in training.

    Raises:
        DataError: a sample cannot be read, or no pixel is labelled.
    """

    def of_image(index: int) -> np.ndarray:
        mask = dataset.load(index).mask
        return np.bincount(mask.ravel(), minlength=256)[: len(dataset.classes)] / mask.size

    total = np.zeros(len(dataset.classes))
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for done, part in enumerate(pool.map(of_image, range(len(dataset))), 1):
            total += part
            if progress is not None:
                progress(done, len(dataset))
    if not total.any():
        raise DataError(f"split {split!r} has no labelled pixel in its {len(dataset)} images; see `edgekd data check`")
    return [float(share) for share in total / total.sum()]


def unreadable(split: str, errors: Sequence[str]) -> CheckReport:
    """Return the report of a split that could not be opened."""
    return CheckReport(split, (), 0, (), (), 0.0, (0, 0), (0, 0), tuple(errors), ())


def _examine(dataset: DenseDataset, index: int) -> _Finding:
    try:
        sample = dataset.load(index)
    except DataError as exc:
        return _Finding(dataset.name(index), np.zeros(256, np.int64), (0, 0), str(exc))
    height, width = sample.mask.shape
    if labels_objects(sample):
        assert sample.instances is not None
        ignored = sample.instances.is_ignored
        counts = np.bincount(sample.instances.labels[~ignored], minlength=256)
        return _Finding(sample.name, counts, (height, width), has_objects=True, crowds=int(ignored.sum()))
    return _Finding(sample.name, np.bincount(sample.mask.ravel(), minlength=256), (height, width))


def labels_objects(sample: Sample) -> bool:
    """Whether a sample comes from a data set of objects, without a class map."""
    return sample.instances is not None and bool((sample.mask == IGNORE_INDEX).all())


def _summary(classes: tuple[str, ...], split: str, findings: list[_Finding], repairs: list[str]) -> CheckReport:
    good = [finding for finding in findings if not finding.error]
    counts = np.array([finding.counts for finding in good], np.int64).reshape(len(good), 256)  # (images, mask value)
    amounts = counts.sum(axis=0)
    has_objects = any(finding.has_objects for finding in good)
    pixels = np.zeros(256, np.int64) if has_objects else amounts
    sizes = np.array([finding.size for finding in good] or [(0, 0)])
    return CheckReport(
        split=split,
        classes=classes,
        num_images=len(findings),
        pixel_counts=_ints(pixels[: len(classes)]),
        image_counts=_ints((counts > 0).sum(axis=0)[: len(classes)]),
        ignored_fraction=float(pixels[IGNORE_INDEX] / max(pixels.sum(), 1)),
        min_size=(int(sizes[:, 0].min()), int(sizes[:, 1].min())),
        max_size=(int(sizes[:, 0].max()), int(sizes[:, 1].max())),
        errors=tuple(finding.error for finding in findings if finding.error),
        warnings=(*_warnings(classes, split, good, amounts), *(f"repaired: {line}" for line in repairs)),
        object_counts=_ints(amounts[: len(classes)]) if has_objects else (),
    )


def _ints(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _warnings(classes: tuple[str, ...], split: str, good: list[_Finding], amounts: np.ndarray) -> Iterable[str]:
    absent = [name for index, name in enumerate(classes) if amounts[index] == 0]
    if good and absent:
        yield f"{len(absent)} of {len(classes)} classes never occur in split {split!r}: {', '.join(absent)}"
    if good and len(absent) == len(classes) - 1 and amounts[IGNORE_INDEX] and not good[0].has_objects:
        yield IS_255_A_CLASS
    crowds = sum(finding.crowds for finding in good)
    if crowds:
        yield f"{crowds} objects are crowds or difficult: training and evaluation ignore them"
    blank = [finding.name for finding in good if finding.counts[:IGNORE_INDEX].sum() == 0]
    if blank:
        what = "object" if good[0].has_objects else "labelled pixel"
        yield f"{len(blank)} of {len(good)} images have no {what}, the first is {blank[0]}"

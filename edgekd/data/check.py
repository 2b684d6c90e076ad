"""Check of a data set: reads every sample once, counts classes, and finds errors and suspicious labels.

The stage `data` and `edgekd data check` call `check_data`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from edgekd.core.progress import Progress, progress_bar
from edgekd.core.recipe import Recipe
from edgekd.data.base import IGNORE_INDEX, DenseDataset
from edgekd.data.facts import MAX_THREADS, file_name, read_facts, remembered_facts
from edgekd.data.findings import Finding, error, grouped_errors
from edgekd.data.pair_findings import flip_findings, never_trained, palette_findings, shared_finding
from edgekd.data.split_findings import CheckedSplit, absent_classes, cap_findings, label_findings, size_findings
from edgekd.data.splits import open_split, shared_images
from edgekd.errors import DataError, one_line

log = logging.getLogger(__name__)
LOG_EVERY_S = 20.0  # between lines about the progress of reading, where no bar is shown


@dataclass(frozen=True)
class CheckReport:
    """The result of checking one split. Statistics run over the images that could be read.

    Attributes:
        split: its name.
        classes: class names in index order.
        num_images: images of the split, readable or not.
        num_bad: images that cannot be read.
        pixel_counts: labelled pixels per class; zeros where objects are labelled.
        object_counts: objects per class, crowds not counted; empty where pixels are labelled.
        image_counts: images in which the class occurs, per class.
        ignored_fraction: ignored pixels / all pixels, in [0, 1].
        min_size, max_size: smallest and largest (height, width), each side on its own; (0, 0) when none is readable.
        findings: errors and warnings about this split.
        repairs: number of repairs of labels, by kind.
    """

    split: str
    classes: tuple[str, ...] = ()
    num_images: int = 0
    num_bad: int = 0
    pixel_counts: tuple[int, ...] = ()
    image_counts: tuple[int, ...] = ()
    ignored_fraction: float = 0.0
    min_size: tuple[int, int] = (0, 0)
    max_size: tuple[int, int] = (0, 0)
    findings: tuple[Finding, ...] = ()
    repairs: dict[str, int] | None = None
    object_counts: tuple[int, ...] = ()

    @property
    def errors(self) -> tuple[str, ...]:
        """One line per cause for which a run refuses the split."""
        return tuple(finding.text for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line per finding that does not stop a run, and per kind of repair."""
        found = [finding.text for finding in self.findings if not finding.is_error]
        return (*found, *(f"repaired: {count} {what}" for what, count in (self.repairs or {}).items()))

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Share of each class in the labelled pixels; zeros when there are none."""
        total = sum(self.pixel_counts)
        return tuple(count / total if total else 0.0 for count in self.pixel_counts)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "errors": list(self.errors), "warnings": list(self.warnings)}

    def text(self, max_errors: int = 100) -> str:
        """Return the report as lines for a terminal: images, a table of classes, warnings, at most `max_errors` errors."""
        errors = [f"  error: {error}" for error in self.errors[:max_errors]]
        if len(self.errors) > max_errors:
            errors.append(f"  and {len(self.errors) - max_errors} more errors")
        if not self.num_images:
            return "\n".join([f"split {self.split}:", *errors])
        width = max(len(name) for name in (*self.classes, "class"))
        sizes = " to ".join(f"{h}x{w}" for h, w in sorted({self.min_size, self.max_size}))
        head = f"split {self.split}: {self.num_images} images, {self.num_bad} bad; height x width {sizes}; "
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
class DataCheck:
    """The result of checking the splits of a recipe.

    reports: one for the training split and one for the scored split; a single one if they are the same.
    findings: errors and warnings about the two splits together.
    datasets: the splits that could be opened, by name.
    shared: names of the images that are in both splits.
    """

    reports: tuple[CheckReport, ...]
    findings: tuple[Finding, ...]
    datasets: dict[str, DenseDataset]
    shared: tuple[str, ...] = ()

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The findings of every split, then those about both."""
        return (*(finding for report in self.reports for finding in report.findings), *self.findings)

    def require_no_error(self) -> None:
        """Check that no finding is an error; DataError with their number and the first, and all of them as its `lines`."""
        errors = tuple(finding.text for finding in self.all_findings if finding.is_error)
        if errors:
            raise DataError(f"{len(errors)} errors, first: {errors[0]}" if len(errors) > 1 else errors[0], errors)

    def to_dict(self) -> dict[str, Any]:
        """Return reports and findings as JSON values."""
        return {
            "splits": [report.to_dict() for report in self.reports],
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_data(recipe: Recipe) -> DataCheck:
    """Check every sample of a recipe's splits, with cached facts from an earlier check if there are any.

    Bad files are reported, not raised. Facts of splits without bad files are cached in the user's cache folder.

    Raises:
        RecipeError: the format has no labels for the task.
    """
    data = recipe.data
    checked: dict[str, CheckedSplit] = {}
    reports: list[CheckReport] = []
    datasets: dict[str, DenseDataset] = {}
    for split in dict.fromkeys((data.train, data.val)):
        try:
            dataset = datasets[split] = open_split(recipe, split)
        except DataError as exc:
            reports.append(unreadable(split, exc.lines or (one_line(exc, None),)))
            continue
        with _progress(f"reading split {split}") as progress:
            facts = remembered_facts(recipe, dataset, split, progress)
        one = checked[split] = CheckedSplit(split, dataset.classes, partial(file_name, dataset), facts)
        found = [*label_findings(one), *size_findings(one, data, is_train=split == data.train)]
        if split == data.val:
            found += cap_findings(one, recipe.evaluate.max_detections)
        reports.append(_report(one, found))
    classes = next(iter(checked.values())).classes if checked else ()
    findings: list[Finding] = [*flip_findings(classes, data.augment)] if checked else []
    train, val, shared = checked.get(data.train), checked.get(data.val), []
    if train and val and train.classes != val.classes:
        text = f"splits {train.name!r} and {val.name!r} have different classes: {train.classes} and {val.classes}"
        findings.append(error("different_classes", text))
    elif train and val:
        known = (train.amounts == 0) & (val.amounts > 0)
        for place, one in enumerate(checked.values()):
            absent = absent_classes(one, known if one is train else None)
            reports[place] = replace(reports[place], findings=(*reports[place].findings, *absent))
        if train is not val:
            shared = shared_images(datasets[data.train], datasets[data.val])
        findings += never_trained(train, val)
        findings += shared_finding(shared, train.name, val.name, len(datasets[data.val]))
    findings += palette_findings(list(checked.values())) if checked else ()
    return DataCheck(tuple(reports), tuple(findings), datasets, tuple(shared))


def check_dataset(dataset: DenseDataset, split: str, progress: Progress | None = None) -> CheckReport:
    """Load every sample of one split and return its report, without checks that need a recipe. Bad files are reported.

    Args:
        dataset: the opened split.
        split: its name.
        progress: called with (images done, images in all) after each image, in order.
    """
    one = CheckedSplit(split, dataset.classes, partial(file_name, dataset), read_facts(dataset, progress))
    return _report(one, [*label_findings(one), *absent_classes(one), *palette_findings([one])])


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
    return CheckReport(split, findings=tuple(grouped_errors(("", line) for line in errors)))


def _report(split: CheckedSplit, findings: list[Finding]) -> CheckReport:
    facts = split.facts
    bad = [(split.file_name(sample), text) for sample, text in facts.errors]
    amounts, sizes = split.amounts, facts.sizes[facts.is_readable]
    sizes = sizes if len(sizes) else np.zeros((1, 2), np.int64)
    pixels = np.zeros_like(amounts) if facts.has_objects else amounts
    ignored = 0 if facts.has_objects else facts.total(IGNORE_INDEX)
    return CheckReport(
        split=split.name,
        classes=split.classes,
        num_images=len(facts),
        num_bad=len(bad),
        pixel_counts=_ints(pixels),
        image_counts=_ints((facts.counts(len(split.classes)) > 0).sum(axis=0)),
        ignored_fraction=ignored / max(int(pixels.sum()) + ignored, 1),
        min_size=(int(sizes[:, 0].min()), int(sizes[:, 1].min())),
        max_size=(int(sizes[:, 0].max()), int(sizes[:, 1].max())),
        findings=(*grouped_errors(bad), *findings),
        repairs=facts.repairs,
        object_counts=_ints(amounts) if facts.has_objects else (),
    )


def _ints(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """Yield a function that shows progress: a bar on a terminal, else a log line every `LOG_EVERY_S`."""
    started = last = time.monotonic()
    with progress_bar(title) as bar:

        def show(done: int, total: int) -> None:
            nonlocal last
            bar(done, total)
            if (now := time.monotonic()) - last > LOG_EVERY_S and done < total:
                last = now
                log.info("%s: %d of %d images, %.0f s left", title, done, total, (now - started) * (total / done - 1))

        yield show

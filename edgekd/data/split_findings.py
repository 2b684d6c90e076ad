"""Findings about one split: errors and warnings from its facts, by the kind of label and by the recipe's `data`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgekd.board.frame import frame
from edgekd.board.specs import Preprocess
from edgekd.core.recipe import Data
from edgekd.data.annotation import NO_MASK
from edgekd.data.base import IGNORE_INDEX, MIN_SIDE
from edgekd.data.facts import SplitFacts
from edgekd.data.findings import Finding, error, warning
from edgekd.data.object_cap import best_average_precision, best_recalls

IS_255_A_CLASS = (
    "all other pixels are ignored, as in a mask of 0 and 255; if both are classes, use format `folder` with "
    "data.options.labels, e.g. {0: background, 255: crack}"
)
MAX_SQUEEZE = 1.5  # change of the aspect by `data.size` from which a stretched image is warned of
USUAL_STRIDE = 32  # of most networks; `models.build.check_input_size` knows each network's own
_NO_CROWDS = "where they are single objects (CVAT marks masks drawn with a brush), set data.options.crowds: objects of format `coco`"
_MIRRORED = 1.1  # change of the aspect up to which a size turned by 90 degrees is the images' own


@dataclass(frozen=True)
class CheckedSplit:
    """A split and its facts, as the checks take them.

    name: its name in the recipe.
    classes: class names in index order.
    file_name: gives the name of a sample's image file.
    facts: facts of every sample.
    """

    name: str
    classes: tuple[str, ...]
    file_name: Callable[[int], str]
    facts: SplitFacts

    @cached_property
    def num_images(self) -> int:
        """Samples that could be read."""
        return int(self.facts.is_readable.sum())

    @cached_property
    def amounts(self) -> np.ndarray:
        """(K,) labelled pixels or objects of each class."""
        return self.facts.counts(len(self.classes)).sum(axis=0)

    def of_images(self, code: str, samples: np.ndarray, text: str) -> Iterator[Finding]:
        """Yield the warning about some samples (N,) bool: `<n> of <N> images of split <name> <text>`; the text has a {first}."""
        if samples.any():
            count, first = int(samples.sum()), self.file_name(int(samples.argmax()))
            text = f"{count} of {self.num_images} images of split {self.name!r} {text.format(first=first)}"
            yield warning(code, text, count, first)


def label_findings(split: CheckedSplit) -> Iterator[Finding]:
    """Yield the findings about a split's labels that need no recipe."""
    if not split.num_images:
        return
    facts = split.facts
    yield from _object_findings(split) if facts.has_objects else _pixel_findings(split)
    labelled = np.zeros(len(facts), bool)
    labelled[facts.labels[facts.labels[:, 1] != IGNORE_INDEX, 0]] = True
    what = "object" if facts.has_objects else "labelled pixel"
    if labelled.any():
        blank = facts.is_readable & ~labelled
        yield from split.of_images("unlabelled_images", blank, f"have no {what}, the first is {{first}}")
    unknown = (
        "and no size says whether their boxes were drawn on the upright image"
        if facts.has_objects
        else "and their masks lack it"
    )
    yield from split.of_images(
        "exif_orientation",
        facts.unchecked,
        f"have an EXIF orientation, {unknown}, the first is {{first}}: "
        "labels are taken as those of the upright image; look at the contact sheet of `edgekd data check`",
    )


def absent_classes(split: CheckedSplit, known: np.ndarray | None = None) -> Iterator[Finding]:
    """Yield the warning about classes without a label in a split, except those in `known` (K,) bool, reported elsewhere."""
    is_absent = split.amounts == 0
    if known is not None:
        is_absent &= ~known
    absent = [name for name, lacks in zip(split.classes, is_absent, strict=True) if lacks]
    if split.num_images and absent and len(absent) < len(split.classes):
        text = f"{len(absent)} of {len(split.classes)} classes never occur in split {split.name!r}: {', '.join(absent)}"
        yield warning("absent_classes", text, len(absent), absent[0])


def size_findings(split: CheckedSplit, data: Data, is_train: bool) -> Iterator[Finding]:
    """Yield the findings about `data.size`: height and width swapped, aspect squeezed, objects too small."""
    facts = split.facts
    if not split.num_images:
        return
    (height, width), sizes = data.size, facts.sizes[facts.is_readable].astype(float)
    aspects = sizes[:, 1] / sizes[:, 0]
    squeezes, turned = _ratio(aspects, width / height), _ratio(aspects, height / width)
    is_other_way = bool(((aspects > 1) == (width < height)).all() and width != height and (aspects != 1).all())
    is_mirrored = bool(np.median(turned) <= _MIRRORED < np.median(squeezes))
    is_nearer = bool(np.median(turned) <= MAX_SQUEEZE < np.median(squeezes))
    if is_other_way and (is_mirrored or (is_nearer and data.resize == "stretch")):
        shapes = ("landscape", "portrait") if width < height else ("portrait", "landscape")
        yield error(
            "size_turned",
            f"all {split.num_images} images of split {split.name!r} are {shapes[0]}, and data.size [{height}, {width}] (height, "
            f"width) is {shapes[1]}; did you mean [{width}, {height}]?",
            split.num_images,
            split.file_name(int(facts.is_readable.argmax())),
        )
    elif data.resize == "stretch":
        squeezed = np.zeros(len(facts), bool)
        squeezed[facts.is_readable] = squeezes > MAX_SQUEEZE
        yield from split.of_images(
            "squeezed",
            squeezed,
            f"change their aspect by more than {MAX_SQUEEZE:g} when they are stretched to data.size [{height}, {width}], up "
            f"to {squeezes.max():.1f}, the first is {{first}}; choose a size near their aspect, or data.resize: letterbox",
        )
    if facts.has_objects:
        yield from _small_objects(split, data, is_train)


def indivisible_size(data: Data) -> Iterator[Finding]:
    """Yield the warning about a `data.size` that most networks refuse; a run checks it against its own networks."""
    if any(side % USUAL_STRIDE for side in data.size):
        height, width = (max(1, round(side / USUAL_STRIDE)) * USUAL_STRIDE for side in data.size)
        text = (
            f"data.size [{data.size[0]}, {data.size[1]}] (height, width) is not divisible by {USUAL_STRIDE}, the coarsest stride "
            f"of most networks, which then refuse it; the nearest is [{height}, {width}]"
        )
        yield warning("indivisible_size", text)


def cap_findings(split: CheckedSplit, cap: int) -> Iterator[Finding]:
    """Yield the warning about images with more objects than `cap`, the number of scored detections per image."""
    if not split.facts.has_objects:
        return
    counts = split.facts.counts(len(split.classes))
    most = int(counts.sum(axis=1).max(initial=0))
    if most <= cap:
        return
    recalls = best_recalls(counts, cap)
    yield from split.of_images(
        "many_objects",
        counts.sum(axis=1) > cap,
        f"have more than {cap} objects, up to {most}, the first is {{first}}: scoring takes {cap} detections per image, so "
        f"that perfect labels would score {best_average_precision(recalls):.1%} AP and {np.nanmean(recalls):.1%} AR; raise "
        "evaluate.max_detections",
    )


def _pixel_findings(split: CheckedSplit) -> Iterator[Finding]:
    present = [name for name, pixels in zip(split.classes, split.amounts, strict=True) if pixels]
    ignored = split.facts.total(IGNORE_INDEX)
    if not present:
        yield error(
            "no_labels",
            f"split {split.name!r} has no labelled pixel in its {split.num_images} images: all are ignored; check the mask "
            "folder and the ignored value, or take a split with labels",
            split.num_images,
            split.file_name(int(split.facts.is_readable.argmax())),
        )
    elif len(present) == 1:
        hint = f": {IS_255_A_CLASS}" if ignored else "; a segmenter needs two classes: check the masks and data.options"
        yield error(
            "one_class",
            f"split {split.name!r} has labelled pixels of one class alone, {present[0]!r}, in its {split.num_images} images"
            f"{hint}",
            split.num_images,
            split.file_name(int(split.facts.is_readable.argmax())),
        )


def _object_findings(split: CheckedSplit) -> Iterator[Finding]:
    facts = split.facts
    objects, ignored = int(split.amounts.sum()), int(facts.ignored.sum())
    amount = f"{ignored} of {objects + ignored}" if objects else f"all {ignored}"
    said = f"{amount} objects of split {split.name!r} are crowds or difficult"
    first = split.file_name(int((facts.ignored > 0).argmax())) if ignored else ""
    if ignored and not objects:
        yield error(
            "only_crowds",
            f"{said}, which training and evaluation ignore; {_NO_CROWDS}",
            ignored,
            first,
        )
    elif ignored:
        yield warning(
            "ignored_objects",
            f"{said}, the first in {first}: training and evaluation ignore them; {_NO_CROWDS}",
            ignored,
            first,
        )
    if not ignored and not objects:
        left_out = ", ".join(f"{count} {what}" for what, count in facts.repairs.items())
        hint = "; without masks, use task: detection" if NO_MASK in facts.repairs else ""
        yield error(
            "no_labels",
            f"split {split.name!r} has no object in its {split.num_images} images{f' ({left_out})' * bool(left_out)}, "
            f"expected at least one{hint}",
            split.num_images,
            split.file_name(int(facts.is_readable.argmax())),
        )
    apart = int(facts.apart.sum())
    if apart:
        first = split.file_name(int((facts.apart > 0).argmax()))
        text = (
            f"{apart} objects of split {split.name!r} have a mask outside of their box, the first is in {first}; "
            "fix the box or the mask"
        )
        yield warning("mask_outside_box", text, apart, first)


def _small_objects(split: CheckedSplit, data: Data, is_train: bool) -> Iterator[Finding]:
    """Yield the finding about objects under MIN_SIDE pixels at `data.size`: an error when training has no other ones."""
    facts = split.facts
    if not len(facts.sides):
        return
    samples = facts.sides[:, 0].astype(int)
    preprocess = Preprocess(data.size, resize=data.resize)
    sizes, place = np.unique(facts.sizes[samples], axis=0, return_inverse=True)
    placed = np.array([frame((int(h), int(w)), preprocess).size for h, w in sizes], float)
    scale = (placed / sizes)[place.reshape(-1)]  # (M, 2)
    is_small = (facts.sides[:, 1:] * scale < MIN_SIDE - 1e-3).any(axis=1)
    if not is_small.any():
        return
    count, first = int(is_small.sum()), split.file_name(int(samples[is_small.argmax()]))
    height, width = data.size
    if is_train and count == len(is_small):
        largest = facts.sides[:, 1:].max(axis=0)
        shares = "; are they shares of the image's sides, not pixels?" if (largest <= 1).all() else ""
        text = (
            f"all {count} objects of split {split.name!r} are under {MIN_SIDE:g} pixels high or wide at data.size [{height}, "
            f"{width}], the first is in {first}: training drops them{shares or '; raise data.size, or cut the images into tiles'}"
        )
        yield error("only_small_objects", text, count, first)
        return
    text = (
        f"{count} of {len(is_small)} objects of split {split.name!r} are under {MIN_SIDE:g} pixels high or wide at data.size "
        f"[{height}, {width}], the first is in {first}: "
        + ("training drops them" if is_train else "they can hardly be found")
        + "; raise data.size, or cut the images into tiles"
    )
    yield warning("small_objects", text, count, first)


def _ratio(one: np.ndarray, other: float) -> np.ndarray:
    """Return how many times the one is the other, or the other the one: 1 or more."""
    return np.maximum(one / other, other / one)

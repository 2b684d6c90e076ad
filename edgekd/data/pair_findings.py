"""Findings about two splits together: classes, palettes, images in both, and classes that a flip mirrors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgekd.core.recipe import Augment
from edgekd.data.findings import Finding, error, warning
from edgekd.data.mirrored import mirrored_pairs, upended_pairs
from edgekd.data.split_findings import CheckedSplit
from edgekd.errors import did_you_mean


def palette_findings(splits: Sequence[CheckedSplit]) -> Iterator[Finding]:
    """Yield the warning about masks whose palette has a colour at another index than most masks of all splits have it.

    Colours that one mask has at several of its indices tell nothing and are left out.
    """
    parts = []
    for number, split in enumerate(splits):
        rows = split.facts.palettes
        parts.append(np.column_stack([np.full(len(rows), number), rows]))
    rows = np.concatenate(parts)  # (P, 4) split, sample, index, colour
    _, place, times = np.unique(rows[:, [0, 1, 3]], axis=0, return_inverse=True, return_counts=True)
    rows = rows[times[place.reshape(-1)] == 1]
    usual = _usual_indices(rows)
    is_other = np.array([usual[color] != index for index, color in rows[:, 2:].tolist()], bool)
    for number, split in enumerate(splits):
        own = rows[is_other & (rows[:, 0] == number)]
        if not len(own):
            continue
        count = len(np.unique(own[:, 1]))
        _, sample, index, color = own[own[:, 1].argmin()].tolist()
        first = split.file_name(sample)
        text = (
            f"the palettes of {count} of {split.num_images} masks of split {split.name!r} order the same colours differently "
            f"than others do, the first is of {first}: #{color:06x} is {index} in it and {usual[color]} elsewhere; stored indices "
            "are the classes, so if the colours are right, name them in data.options.colors of format `folder`"
        )
        yield warning("palette_order", text, count, first)


def _usual_indices(rows: np.ndarray) -> dict[int, int]:
    """Return colour -> its most frequent palette index over the masks; on a tie the first."""
    times: dict[int, dict[int, int]] = {}
    for index, color in rows[:, 2:].tolist():
        seen = times.setdefault(color, {})
        seen[index] = seen.get(index, 0) + 1
    return {color: max(seen, key=seen.__getitem__) for color, seen in times.items()}


def never_trained(train: CheckedSplit, val: CheckedSplit) -> Iterator[Finding]:
    """Yield the warning about scored classes without a label in the training split."""
    missing = (train.amounts == 0) & (val.amounts > 0)
    names = [name for name, is_missing in zip(train.classes, missing, strict=True) if is_missing]
    if names and train.num_images:
        text = (
            f"classes of split {val.name!r} of which split {train.name!r} has no label: {len(names)}, {', '.join(names)}; a "
            "network cannot learn them, and each counts as 0 in the mean; split the images otherwise, or leave them out"
        )
        yield warning("never_trained", text, len(names), names[0])


def shared_finding(shared: Sequence[str], train: str, val: str, num_val: int) -> Iterator[Finding]:
    """Yield the warning about images that are in both splits."""
    if shared:
        text = (
            f"{len(shared)} of the {num_val} images of split {val!r} are in split {train!r}, too, the first is {shared[0]}: "
            "scores will be too good; take them out of one"
        )
        yield warning("in_both_splits", text, len(shared), shared[0])


def flip_findings(classes: Sequence[str], augment: Augment) -> Iterator[Finding]:
    """Yield the error about unknown names in `flip_pairs`, and the warnings about classes that a flip turns into another."""
    unknown = [name for pair in augment.flip_pairs for name in pair if name not in classes]
    if unknown:
        text = f"data.augment.flip_pairs: no class is called {unknown[0]!r}{did_you_mean(unknown[0], classes)}"
        yield error("flip_pairs", text, len(unknown), unknown[0])
    given = {frozenset(pair) for pair in augment.flip_pairs}
    pairs = [pair for pair in mirrored_pairs(classes) if frozenset(pair) not in given]
    if augment.flip > 0 and pairs:
        shown = ", ".join(f"[{one}, {other}]" for one, other in pairs[:8])
        text = (
            f"classes that mirror each other, and data.augment.flip is {augment.flip:g}: flipped views teach the opposite; "
            f"set data.augment.flip_pairs: [{shown}] to swap the labels on a flip, or flip: 0"
        )
        yield warning("flipped_classes", text, len(pairs), pairs[0][0])
    upended = upended_pairs(classes)
    if augment.flip_vertical > 0 and upended:
        shown = ", ".join(f"{one} and {other}" for one, other in upended[:8])
        text = (
            f"data.augment.flip_vertical is {augment.flip_vertical:g}, and classes say up and down: {shown}; half of the "
            "flipped views may teach the opposite: set flip_vertical: 0"
        )
        yield warning("flipped_classes", text.replace("half of the flipped views may", "flipped views may"), len(upended),
                      upended[0][0])  # fmt: skip

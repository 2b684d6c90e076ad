"""Annotated objects, and safe repairs: swapped corners, boxes beyond the edge, duplicate objects.

A format of objects makes an `AnnotatedImage` per image and gives them to `annotated.AnnotatedDataset`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any, Literal, Protocol

import numpy as np

from edgekd.data.class_lists import IGNORED, listed_names
from edgekd.data.paired import checked_classes
from edgekd.errors import DataError, did_you_mean

# A box may pass the image's edge by this much, in pixels or as a share of the side: it is clipped, and counted as a repair.
CLIP_PX, CLIP_SHARE = 1.0, 0.01
NO_MASK = "annotations without a mask left out"  # kinds of repair
OTHER_CLASSES = "objects of classes that data.options.classes leaves out"
TURNED = "boxes with corners in the wrong order set right"
TWICE = "equal objects counted once"
NO_OBJECTS = (IGNORED, "_background_", "background")  # entries of tools' class lists that are not object classes
MAX_SIDE = 10**6  # of an image in pixels: beyond any real image

BeyondEdge = Literal["refuse", "cut"]
BEYOND_EDGE = (
    "Boxes and polygons that pass the image's edge by more than 1 pixel or 1 %: `refuse` them, or `cut` them at the edge and "
    "count them."
)
CLASSES = (
    "Class names in index order, or a class list of a labelling tool below `root`, such as a text file with one name per line. "
    "Objects of other classes are left out and counted."
)


class Mask(Protocol):
    """An object's mask, read when it is needed."""

    def runs(self, height: int, width: int, /) -> np.ndarray:
        """Return its run lengths over an image of this size, column by column, zeros first, int64; ValueError when it is
        damaged."""

    def content(self) -> str:
        """Return the mask's data as text, for the fingerprint; ValueError when it cannot be written."""


class OutsideError(ValueError):
    """A mask passes the image's edge; the message names the coordinate, the limit and the image's size."""


@dataclass(frozen=True)
class Annotation:
    """One object. `box` is x1, y1, x2, y2 in pixels, x2 and y2 exclusive; `where` names the object in messages."""

    label: int
    box: tuple[float, float, float, float]
    where: str
    mask: Mask | None = None
    is_crowd: bool = False
    is_difficult: bool = False
    area: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file with its objects; `size` (height, width) may be None for an image without objects.

    repairs: number of repairs in this image by kind.
    is_measured: whether `size` comes from the image file and not from the annotations.
    """

    name: str
    image: Path
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]
    repairs: Mapping[str, int] = field(default_factory=dict)
    is_measured: bool = False


def require_images(images: Sequence[AnnotatedImage]) -> None:
    """Check that all image files exist; DataError with the first and the number of missing ones."""
    missing = [
        one.image for one in images if not os.path.isfile(one.image)
    ]  # unlike Path.is_file, also of endless names
    if missing:
        first = str(missing[0])
        raise DataError(
            f"{len(missing)} of {len(images)} listed images are missing, the first is {first[:300]}; add or unlist them"
        )


def checked_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check an image's height and width and return them; DataError when they are not whole numbers of pixels."""
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE:
            raise DataError(
                f"{where}: expected height and width from 1 to {MAX_SIDE} pixels, "
                f"got {short(height)} and {short(width)}; fix them"
            )
    return height, width


def chosen_classes(
    root: Path, chosen: Sequence[str] | str, known: Sequence[str] | None, source: str
) -> tuple[str, ...]:
    """Return the classes of an option `classes` of a format of objects, in its order; those of the files where it is empty.

    Args:
        root: folder of the data set.
        chosen: the option: names, or a class list of a labelling tool below `root`; its entries that no object has are left out.
        known: the classes that the files name; None where they list none.
        source: what names them, for messages.

    Raises:
        DataError: as `checked_classes`, a name that is not known, or a list that cannot be read.
    """
    if known is not None and (not chosen or len(set(known)) < len(known)):
        return checked_classes(known, source)
    names = listed_names(root, chosen)
    if isinstance(chosen, str):
        names = tuple(name for name in names if name not in NO_OBJECTS or name in (known or ()))
    for name in names:
        if known is not None and name not in known:
            raise DataError(
                f"data.options.classes: {source} has no class {name!r}{did_you_mean(name, known)}; fix the name"
            )
    return names


class Refusals:
    """Collects the errors of single annotations of a split, to report all of them at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """Collect the DataError of a block instead of raising it."""
        try:
            yield
        except DataError as exc:
            self.lines.append(str(exc))

    def check(self) -> None:
        """Raise DataError with the first error, and all as its `lines`, when there are any."""
        if self.lines:
            more = len(self.lines) - 1
            rest = f" ({more} more are wrong; `edgekd data check` lists them)" if more else ""
            raise DataError(self.lines[0] + rest, tuple(self.lines))


@contextmanager
def damage_of(one: Annotation) -> Iterator[None]:
    """Raise the ValueError of an object's mask as a DataError that names the object."""
    try:
        yield
    except OutsideError as exc:
        raise DataError(f"{one.where}: {exc}; fix the annotation, or set data.options.beyond_edge: cut") from exc
    except ValueError as exc:
        raise DataError(f"{one.where}: the mask is damaged: {exc}; remove the annotation or fix it") from exc


def repaired(image: AnnotatedImage, beyond_edge: BeyondEdge, refusals: Refusals) -> AnnotatedImage:
    """Return the image with boxes in order and inside of it, and each object once; `repairs` counts what was done.

    Faults that cannot be repaired go to `refusals`.
    """
    repairs = Counter(image.repairs)
    objects: list[Annotation] = []
    for one in image.objects:
        with refusals.one():
            inside = one if image.size is None else _inside(one, image.size, beyond_edge, repairs)
            objects += [inside] if inside else []
    once = _once(objects)
    repairs[TWICE] += len(objects) - len(once)
    return replace(image, objects=tuple(once), repairs={kind: count for kind, count in repairs.items() if count})


def _inside(
    one: Annotation, size: tuple[int, int], beyond_edge: BeyondEdge, repairs: Counter[str]
) -> Annotation | None:
    """Return the object with its box in order and cut at the image's edge; None when the box has no area."""
    if not all(map(math.isfinite, one.box)):
        raise DataError(f"{one.where}: expected a box of finite numbers, got {list(one.box)}; fix the annotation")
    (x1, x2), (y1, y2) = sorted(one.box[::2]), sorted(one.box[1::2])
    if x1 == x2 or y1 == y2:
        repairs["boxes without area left out"] += 1
        return None
    box = (x1, y1, x2, y2)
    repairs[TURNED] += box != one.box
    if beyond_edge == "refuse":
        _check_edges(replace(one, box=box), size)
    height, width = size
    cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        repairs["boxes outside of the image left out"] += 1
        return None
    repairs["boxes cut at the image's edge"] += cut != box
    return one if cut == one.box else replace(one, box=cut)


def _check_edges(one: Annotation, size: tuple[int, int]) -> None:
    """Check that a box passes the edge of an image (height, width) by no more than what is cut; DataError."""
    for axis, side in ((0, size[1]), (1, size[0])):
        low, high = one.box[axis], one.box[axis + 2]
        passed, limit = max(-low, high - side), max(CLIP_PX, CLIP_SHARE * side)
        if passed > limit:
            raise DataError(
                f"{one.where}: box {[round(v, 1) for v in one.box]} passes the edge of the {size[0]}x{size[1]} image "
                f"(height x width) by {passed:.1f} px at {'xy'[axis]} = {low if -low > high - side else high:.1f}, expected "
                f"{'xy'[axis]} from 0 to {side}, up to {limit:.1f} px beyond are cut; fix the annotation, or set "
                "data.options.beyond_edge: cut"
            )


def _once(objects: list[Annotation]) -> list[Annotation]:
    """Return the objects without duplicates (same class, flags, box and mask)."""
    by_box: dict[Any, list[Annotation]] = {}
    for one in objects:
        by_box.setdefault((one.label, one.box, one.is_crowd, one.is_difficult), []).append(one)
    if len(by_box) == len(objects):
        return objects
    again: set[int] = set()
    for alike in by_box.values():
        seen: set[str] = set()
        for one in alike if len(alike) > 1 else ():
            with damage_of(one):
                content = one.mask.content() if one.mask else ""
            if content in seen:
                again.add(id(one))
            seen.add(content)
    return [one for one in objects if id(one) not in again]

"""Data sets of images with annotated objects: checking boxes, safe repairs, decoding masks.

A format of this kind reads its files into `Annotation`s and gives them to `AnnotatedDataset`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import Any, Protocol

import numpy as np

from edgekd.data.base import IGNORE_INDEX, DenseDataset, Instances, Sample
from edgekd.data.images import check_image, read_image
from edgekd.errors import DataError

# A box may pass the image's edge by this much, in pixels or as a share of the side: it is clipped, and counted as a repair.
CLIP_PX, CLIP_SHARE = 1.0, 0.01
NO_MASK = "annotations without a mask left out"  # a kind of repair
MAX_SIDE = 10**6  # of an image in pixels: beyond any real image


class Mask(Protocol):
    """An object's mask, decoded when it is needed."""

    def draw(self, height: int, width: int, /) -> np.ndarray:
        """Return (H, W) bool; ValueError when it is damaged."""

    def check(self, height: int, width: int, /) -> None:
        """Check the mask without drawing it; ValueError when it is damaged."""

    def content(self) -> str:
        """Return the mask's data as text, for the fingerprint; ValueError when it cannot be written."""


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

    is_measured: whether `size` comes from the image file, so that the annotations say nothing of it.
    """

    name: str
    image: Path
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]
    is_measured: bool = False


def require_images(images: Sequence[AnnotatedImage]) -> None:
    """Check that all image files exist; DataError with the first and the number of missing ones."""
    missing = [
        one.image for one in images if not os.path.isfile(one.image)
    ]  # unlike Path.is_file, also of endless names
    if missing:
        first = str(missing[0])
        raise DataError(f"{len(missing)} of {len(images)} listed images are missing, the first is {first[:300]}")


def checked_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check an image's height and width and return them; DataError when they are not whole numbers of pixels."""
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE:
            raise DataError(
                f"{where}: expected height and width from 1 to {MAX_SIDE} pixels, "
                f"got {short(height)} and {short(width)}; fix them"
            )
    return height, width


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


class AnnotatedDataset:
    """Images with objects on disk; implements `DenseDataset`.

    Boxes without area and objects without a mask pixel are dropped. Boxes that pass the edge by a pixel are clipped.

    Args:
        classes: class names in index order.
        images: the files and their objects.
        has_masks: whether samples carry masks.
        repairs: the repairs that the format has made.
        refusals: the annotations that it could not read.

    Raises:
        DataError: something could not be read, or a box is not finite, or lies outside its image, where the
            annotations give the size.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        images: Sequence[AnnotatedImage],
        has_masks: bool,
        repairs: Counter[str] | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self.classes, self.has_masks = classes, has_masks
        self._repairs: Counter[str] = Counter(repairs)
        self._blank: set[str] = set()  # objects whose mask has no pixel, which `load` sees when it draws it
        refusals = refusals or Refusals()
        self._images = [self._checked(image, refusals) for image in images]
        refusals.check()

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._images[index].image,)

    def gives_size(self, index: int) -> bool:
        """Return whether the annotations of an image give its size, which then is held to the upright image's."""
        return self._images[index].size is not None and not self._images[index].is_measured

    @property
    def object_count(self) -> int:
        """The number of objects without crowds and difficult ones."""
        return sum(not (one.is_crowd or one.is_difficult) for image in self._images for one in image.objects)

    @property
    def repairs(self) -> dict[str, int]:
        """Number of repairs by kind; polygons that cover no pixel are counted when they are loaded."""
        return dict(self._repairs + Counter({NO_MASK: len(self._blank)}))

    @cached_property
    def digest(self) -> str:
        """A hash of all annotations, for the fingerprint; DataError for a mask that cannot be written as text."""
        digest = hashlib.sha256()
        for image in self._images:
            digest.update(repr((image.name, image.size, len(image.objects))).encode())
            for one in image.objects:
                with _damage_of(one):
                    content = one.mask.content() if one.mask else ""
                digest.update(repr((one.label, one.box, one.is_crowd, one.is_difficult, one.area, content)).encode())
        return digest.hexdigest()

    def load(self, index: int) -> Sample:
        """Read one image and decode its masks.

        Raises:
            DataError: the file is damaged, of another size than its annotations say, or a mask is damaged.
        """
        entry = self._images[index]
        image = read_image(entry.image)
        height, width = image.shape[:2]
        _check_size(entry, height, width)
        objects, masks = self._drawn(entry.objects, height, width)
        areas = [_area(one, None if masks is None else masks[i]) for i, one in enumerate(objects)]
        instances = Instances(
            masks=masks,
            boxes_xyxy=np.array([one.box for one in objects], np.float32).reshape(-1, 4),
            labels=np.array([one.label for one in objects], np.int64),
            is_crowd=np.array([one.is_crowd for one in objects], bool),
            areas=np.array(areas, np.float32),
            is_difficult=np.array([one.is_difficult for one in objects], bool),
        )
        return Sample(entry.name, image, np.full((height, width), IGNORE_INDEX, np.uint8), instances)

    def check_files(self, index: int) -> None:
        """Check the header of one image and its annotations without decoding pixels; DataError as `load`."""
        entry = self._images[index]
        height, width = check_image(entry.image)
        _check_size(entry, height, width)
        for one in entry.objects if self.has_masks else ():
            assert one.mask is not None
            with _damage_of(one):
                one.mask.check(height, width)

    def _drawn(
        self, objects: Sequence[Annotation], height: int, width: int
    ) -> tuple[Sequence[Annotation], np.ndarray | None]:
        """Return the objects that have a pixel, with their masks (N, H, W) bool; all objects and None without masks."""
        if not self.has_masks:
            return objects, None
        drawn: list[Annotation] = []
        masks = np.empty((len(objects), height, width), bool)
        for one in objects:
            assert one.mask is not None
            with _damage_of(one):
                mask = one.mask.draw(height, width)
            if mask.any():
                masks[len(drawn)] = mask
                drawn.append(one)
            else:
                self._blank.add(one.where)
        return drawn, masks[: len(drawn)]

    def _checked(self, image: AnnotatedImage, refusals: Refusals) -> AnnotatedImage:
        if image.size is None:
            return image
        objects = []
        for one in image.objects:
            with refusals.one():
                objects.append(self._repaired(one, image.size))
        return replace(image, objects=tuple(one for one in objects if one))

    def _repaired(self, one: Annotation, size: tuple[int, int]) -> Annotation | None:
        """Return the object with its box clipped to the image; None when the box has no area."""
        if not all(map(math.isfinite, one.box)):
            raise DataError(f"{one.where}: expected a box of finite numbers, got {list(one.box)}; fix the annotation")
        x1, y1, x2, y2 = one.box
        if x2 <= x1 or y2 <= y1:
            self._repairs["boxes without area left out"] += 1
            return None
        height, width = size
        beyond = (max(-x1, x2 - width), max(-y1, y2 - height))
        for passed, side in zip(beyond, (width, height), strict=True):
            if passed > max(CLIP_PX, CLIP_SHARE * side):
                raise DataError(
                    f"{one.where}: box {[round(v, 1) for v in one.box]} passes the edge of the {height}x{width} image "
                    f"(height x width) by {passed:.1f} px; expected x1, y1, x2, y2 inside; fix the annotation"
                )
        if max(beyond) <= 0:
            return one
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if box[2] <= box[0] or box[3] <= box[1]:
            self._repairs["boxes outside of the image left out"] += 1
            return None
        self._repairs["boxes cut at the image's edge"] += 1
        return replace(one, box=box)


def _check_size(entry: AnnotatedImage, height: int, width: int) -> None:
    """Check that an image has the size in its annotations, where they give one; DataError."""
    if entry.size is not None and entry.size != (height, width):
        raise DataError(
            f"{entry.image}: the image is {height}x{width} (height x width), its annotations say "
            f"{entry.size[0]}x{entry.size[1]}; fix one, and mind EXIF orientation"
        )


@contextmanager
def _damage_of(one: Annotation) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise DataError(f"{one.where}: the mask is damaged: {exc}; remove the annotation or fix it") from exc


def _area(one: Annotation, mask: np.ndarray | None) -> float:
    """Return the area in the annotation, else the mask's, else the box's."""
    if one.area is not None:
        return one.area
    x1, y1, x2, y2 = one.box
    return (x2 - x1) * (y2 - y1) if mask is None else float(mask.sum())


def repairs_of(dataset: DenseDataset) -> dict[str, int]:
    """Return the number of repairs in a data set's labels, by kind."""
    return dataset.repairs if isinstance(dataset, AnnotatedDataset) else {}

"""Data sets of images with annotated objects: loading images, decoding masks, counting repairs."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from edgekd.board.masks import Masks
from edgekd.board.run_masks import mask_areas, run_masks
from edgekd.data.annotation import NO_MASK, AnnotatedImage, Annotation, BeyondEdge, Refusals, damage_of, repaired
from edgekd.data.base import IGNORE_INDEX, DenseDataset, Instances, Sample
from edgekd.data.images import read_image
from edgekd.errors import DataError


class AnnotatedDataset:
    """Image files with annotated objects; implements `DenseDataset`.

    Boxes without area and objects without a mask pixel are dropped, equal objects are kept once, boxes that pass the edge by a
    pixel are clipped, with `beyond_edge` "cut" by any number of pixels.

    Args:
        classes: class names in index order.
        images: the files and their objects.
        has_masks: whether samples carry masks.
        repairs: the repairs that the format has made.
        refusals: the annotations that it could not read.
        beyond_edge: "cut" cuts boxes that pass the edge further.

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
        beyond_edge: BeyondEdge = "refuse",
    ) -> None:
        self.classes, self.has_masks = classes, has_masks
        self._repairs: Counter[str] = Counter(repairs)
        self._blank: set[str] = set()  # objects whose mask has no pixel, which `load` sees when it draws it
        refusals = refusals or Refusals()
        self._images = [repaired(image, beyond_edge, refusals) for image in images]
        refusals.check()

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._images[index].image,)

    def gives_size(self, index: int) -> bool:
        """Return whether an image's annotations give its size, which is then compared with the upright image's."""
        return self._images[index].size is not None and not self._images[index].is_measured

    def only(self, indices: Sequence[int]) -> AnnotatedDataset:
        """Return the data set of some of the images."""
        part = copy.copy(self)
        part.__dict__.pop("digest", None)
        part._images, part._blank = [self._images[index] for index in indices], set()
        return part

    @property
    def has_objects(self) -> bool:
        """Whether there is any object, crowds and difficult ones included."""
        return any(image.objects for image in self._images)

    @property
    def object_count(self) -> int:
        """The number of objects without crowds and difficult ones."""
        return sum(not (one.is_crowd or one.is_difficult) for image in self._images for one in image.objects)

    @property
    def repairs(self) -> dict[str, int]:
        """Number of repairs by kind; polygons that cover no pixel are counted when they are loaded."""
        repairs = self._repairs + Counter({NO_MASK: len(self._blank)})
        for image in self._images:
            repairs.update(image.repairs)
        return dict(repairs)

    @cached_property
    def digest(self) -> str:
        """A hash of all annotations, for the fingerprint; DataError for a mask that cannot be written as text."""
        digest = hashlib.sha256()
        for image in self._images:
            digest.update(repr((image.name, image.size, len(image.objects))).encode())
            for one in image.objects:
                with damage_of(one):
                    content = one.mask.content() if one.mask else ""
                digest.update(repr((one.label, one.box, one.is_crowd, one.is_difficult, one.area, content)).encode())
        return digest.hexdigest()

    def load(self, index: int) -> Sample:
        """Read one image and decode its masks.

        Raises:
            DataError: the file is damaged, its size differs from its annotations, or a mask is damaged.
        """
        entry = self._images[index]
        image = read_image(entry.image)
        height, width = image.shape[:2]
        _check_size(entry, height, width)
        objects, masks = self._drawn(entry.objects, height, width)
        pixels = [None] * len(objects) if masks is None else mask_areas(masks).tolist()
        areas = [_area(one, count) for one, count in zip(objects, pixels, strict=True)]
        instances = Instances(
            masks=masks,
            boxes_xyxy=np.array([one.box for one in objects], np.float32).reshape(-1, 4),
            labels=np.array([one.label for one in objects], np.int64),
            is_crowd=np.array([one.is_crowd for one in objects], bool),
            areas=np.array(areas, np.float32),
            is_difficult=np.array([one.is_difficult for one in objects], bool),
        )
        return Sample(entry.name, image, np.full((height, width), IGNORE_INDEX, np.uint8), instances)

    def _drawn(
        self, objects: Sequence[Annotation], height: int, width: int
    ) -> tuple[Sequence[Annotation], Masks | None]:
        """Return the objects that have a pixel, with their masks; all objects and None without masks."""
        if not self.has_masks:
            return objects, None
        drawn: list[Annotation] = []
        runs: list[np.ndarray] = []
        for one in objects:
            assert one.mask is not None
            with damage_of(one):
                found = one.mask.runs(height, width)
            if found[1::2].any():
                runs.append(found)
                drawn.append(one)
            else:
                self._blank.add(one.where)
        return drawn, run_masks(runs, (height, width))


def _check_size(entry: AnnotatedImage, height: int, width: int) -> None:
    """Check that an image has the size in its annotations, where they give one; DataError."""
    if entry.size is not None and entry.size != (height, width):
        raise DataError(
            f"{entry.image}: the image is {height}x{width} (height x width), its annotations say "
            f"{entry.size[0]}x{entry.size[1]}; fix one, and mind EXIF orientation"
        )


def _area(one: Annotation, pixels: int | None) -> float:
    """Return the area in the annotation, else the mask's, else the box's."""
    if one.area is not None:
        return one.area
    x1, y1, x2, y2 = one.box
    return (x2 - x1) * (y2 - y1) if pixels is None else float(pixels)


def repairs_of(dataset: DenseDataset) -> dict[str, int]:
    """Return the number of repairs in a data set's labels, by kind."""
    repairs: dict[str, int] = getattr(dataset, "repairs", {})
    return repairs

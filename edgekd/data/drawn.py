"""Class maps drawn from annotated objects: polygons and run lengths for the task `semantic`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.board.run_masks import mask_areas
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.annotation import NO_MASK
from edgekd.data.base import IGNORE_INDEX, Sample
from edgekd.data.paired import checked_classes
from edgekd.errors import DataError

# Options that the formats of objects share.
BACKGROUND = (
    "Task semantic: name of the class of pixels that no object covers, which is the first class unless it is listed among the "
    "classes. `null`: these pixels have no label."
)
Order = Literal["smaller", "later"]


class DrawnDataset:
    """Images with a class map drawn from their objects; implements `DenseDataset`.

    Crowds are drawn like other objects: their pixels are of their class.

    Args:
        objects: the images and their objects, with masks.
        background: name of the class of pixels that no object covers; None: they are ignored.
        on_top: the object that gives a pixel its class where several cover it: the one of fewer pixels (the later one of
            equal), so that no small object vanishes under a large one, or always the later one, as labelme draws.
        meant: class of the objects -> the class that its pixels get instead, None: they are ignored.

    Raises:
        DataError: no object has a mask, more than 255 classes, or a background without a name.
    """

    def __init__(
        self,
        objects: AnnotatedDataset,
        background: str | None,
        on_top: Order = "smaller",
        meant: Mapping[str, str | None] | None = None,
    ) -> None:
        if NO_MASK in objects.repairs and not objects.has_objects:
            raise DataError(
                f"no object of {len(objects)} images has a mask, expected polygons or run lengths for task semantic; export "
                "segmentation, or use task: detection"
            )
        name = background.strip() if background is not None else None
        shown = {one: one for one in objects.classes} | dict(meant or {})
        own = [one for one in objects.classes if shown[one] == one]
        names = own if name is None or name in own else (name, *own)
        self.classes = checked_classes(names, "data.options.background and the classes")
        self._objects, self._on_top = objects, on_top
        self._uncovered = self._index(name)
        self._table = [self._index(shown[one]) for one in objects.classes]  # class index of each class of the objects

    def _index(self, name: str | None) -> int:
        return IGNORE_INDEX if name is None else self.classes.index(name)

    def __len__(self) -> int:
        return len(self._objects)

    def name(self, index: int) -> str:
        return self._objects.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._objects.files(index)

    def gives_size(self, index: int) -> bool:
        """Return whether the annotations of an image give its size, see `AnnotatedDataset`."""
        return self._objects.gives_size(index)

    def only(self, indices: Sequence[int]) -> DrawnDataset:
        """Return the data set of some of the images."""
        part = copy.copy(self)
        part._objects = self._objects.only(indices)
        return part

    @property
    def repairs(self) -> dict[str, int]:
        """Number of repairs by kind, see `AnnotatedDataset`."""
        return self._objects.repairs

    @property
    def digest(self) -> str:
        """A hash of all annotations and of how they are drawn, for the fingerprint."""
        return f"{self._objects.digest} {self._uncovered} {self._table} {self._on_top}"

    def load(self, index: int) -> Sample:
        """Read one image and draw its objects, one after the other.

        Raises:
            DataError: the file is damaged, its size differs from its annotations, or a mask is damaged.
        """
        sample = self._objects.load(index)
        assert sample.instances is not None
        assert sample.instances.masks is not None
        masks, classes = sample.instances.masks, sample.instances.labels.tolist()
        labels = np.full(masks.size, self._uncovered, np.uint8)
        areas = np.full(masks.size, np.iinfo(np.int32).max, np.int32)  # pixels of the object on top
        for label, area, (x1, y1, x2, y2), part in zip(
            classes, mask_areas(masks).tolist(), masks.corners.tolist(), masks.parts, strict=True
        ):
            place = np.s_[y1:y2, x1:x2]
            shown = part & (area <= areas[place]) if self._on_top == "smaller" else part
            labels[place][shown] = self._table[label]
            areas[place][shown] = area
        return Sample(sample.name, sample.image, labels)

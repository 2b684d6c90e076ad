"""What a data set is: images with dense labels, opened by one file per format.

A format is one file `data/formats/<name>.py` with

    Options                                           a frozen dataclass of `option` fields: the keys under `data.options`
    open_dataset(options, split) -> DenseDataset      masks of classes, for the task `semantic`
    open_objects(options, split, has_masks) -> DenseDataset    objects: boxes, and masks where has_masks

and one of the two functions, or both.

Opening lists and pairs the files (DataError when that fails); pixels are read only by `load`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

IGNORE_INDEX = 255
COCO_LARGEST = 1e10  # square pixels, COCO's end of "all": a larger object is ignored, at its usual IoU


@dataclass(frozen=True)
class Instances:
    """Objects of one image.

    masks: (N, H, W) bool; None where only boxes are known.
    boxes_xyxy: (N, 4) float32 x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
    labels: (N,) int64 class indices.
    is_crowd: (N,) bool: a region of many objects, each of which a detection may match (COCO); None stands for none.
    is_difficult: (N,) bool: one object that need not be found (VOC); None stands for none.
    areas: (N,) float32 square pixels, by which COCO calls an object small; None stands for the masks' or the boxes'.
    """

    masks: np.ndarray | None
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    is_difficult: np.ndarray | None = None

    @property
    def is_ignored(self) -> np.ndarray:
        """(N,) bool: crowds and difficult objects, which are neither learned from nor have to be found."""
        ignored = np.zeros(len(self.labels), bool)
        for kind in (self.is_crowd, self.is_difficult):
            ignored |= False if kind is None else kind
        return ignored

    @property
    def coco_areas(self) -> np.ndarray:
        """(N,) square pixels, by which COCO calls an object small, and leaves out difficult ones.

        A difficult object must not be a crowd: all detections that lie inside a crowd are forgiven, whatever their IoU.
        """
        if self.areas is not None:
            areas = self.areas
        elif self.masks is not None:
            areas = self.masks.sum(axis=(1, 2))
        else:
            areas = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).prod(axis=1)
        return areas if self.is_difficult is None else np.where(self.is_difficult, 2 * COCO_LARGEST, areas)


@dataclass(frozen=True)
class Sample:
    """One image `image` (H, W, 3) uint8 RGB with `mask` (H, W) uint8 class indices, 255 where the label is ignored.

    Data sets that know objects only give a mask of 255.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    instances: Instances | None = None


class DenseDataset(Protocol):
    """A list of samples. `classes[i]` is the name of class index i; `ignore_index` is always 255 after loading."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return a name that is unique in the split and stable between runs."""

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files that sample is read from (none for generated data)."""

    def load(self, index: int) -> Sample:
        """Read one sample; DataError with the file's path when it is damaged or contradictory."""

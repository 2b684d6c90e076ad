"""Data sets: images with dense labels, and the protocol of a format.

A format is one file `data/formats/<name>.py` with

    TASKS                                             the tasks whose labels it has: semantic, detection, instance
    Options                                           a frozen dataclass of `option` fields: the keys under `data.options`
    open_dataset(options, split) -> DenseDataset      class masks; for the task `semantic`
    open_objects(options, split, has_masks) -> DenseDataset    boxes, and masks where has_masks; for the other two

with the functions that its tasks need. Opening lists and pairs the files (DataError when that fails); `load` reads pixels.
The split `all` is the whole of a data set that has no splits; `data/parts.py` divides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgekd.board.masks import Masks
from edgekd.board.run_masks import mask_areas, tight_masks

IGNORE_INDEX = 255
WHOLE = "all"  # the split that is a whole data set without splits
MIN_SIDE = 2.0  # pixels: training drops objects of which a view shows less, in height or width
COCO_LARGEST = 1e10  # square pixels: the upper limit of COCO's area range "all"; evaluation ignores larger objects


@dataclass(frozen=True)
class Instances:
    """Objects of one image.

    masks: one per object, `masks[i]` is (H, W) bool; None where only boxes are known. Whole masks (N, H, W) bool become `Masks`.
    boxes_xyxy: (N, 4) float32 x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
    labels: (N,) int64 class indices.
    is_crowd: (N,) bool: a region of many objects, which any number of detections may match (COCO); None: no crowds.
    is_difficult: (N,) bool: an object that a detector may miss (VOC); None: no difficult objects.
    areas: (N,) float32 square pixels, for COCO's area ranges; None: computed from the masks, else from the boxes.
    """

    masks: Masks | None
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    is_difficult: np.ndarray | None = None

    def __post_init__(self) -> None:
        if isinstance(self.masks, np.ndarray):  # of formats and tests that have them whole
            object.__setattr__(self, "masks", tight_masks(self.masks))

    @property
    def is_ignored(self) -> np.ndarray:
        """(N,) bool: crowds and difficult objects, which training and evaluation ignore."""
        ignored = np.zeros(len(self.labels), bool)
        for kind in (self.is_crowd, self.is_difficult):
            ignored |= False if kind is None else kind
        return ignored

    @property
    def coco_areas(self) -> np.ndarray:
        """(N,) square pixels for COCO's area ranges; difficult objects are beyond the largest range, so that COCO ignores them.

        A difficult object must not be a crowd: COCO ignores every detection inside a crowd, at any IoU.
        """
        if self.areas is not None:
            areas = self.areas
        elif self.masks is not None:
            areas = mask_areas(self.masks)
        else:
            areas = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).prod(axis=1)
        return areas if self.is_difficult is None else np.where(self.is_difficult, 2 * COCO_LARGEST, areas)


@dataclass(frozen=True)
class Sample:
    """One image `image` (H, W, 3) uint8 RGB with `mask` (H, W) uint8 class indices, 255 where the label is ignored.

    Data sets of objects have a mask of 255 everywhere.
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

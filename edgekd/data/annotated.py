"""Data sets of images with annotated objects: checking the boxes, repairing what is safe, decoding masks.

Every format of this kind reads its files into `Annotation`s and gives them to `AnnotatedDataset`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.base import IGNORE_INDEX, Instances, Sample
from edgekd.data.images import read_image
from edgekd.errors import DataError

# A box may pass the image's edge by so much, in pixels or as a share of the side: it is cut there, and counted.
CLIP_PX, CLIP_SHARE = 1.0, 0.01
MaskOf = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Annotation:
    """One object. `box` is x1, y1, x2, y2 in pixels, x2 and y2 exclusive; None when it is that of the mask.

    mask: gives (H, W) bool for a height and width; ValueError when it is damaged. None where there is no mask.
    where: names the object in messages.
    content: what the mask is made of, for the fingerprint.
    """

    label: int
    box: tuple[float, float, float, float] | None
    where: str
    mask: MaskOf | None = None
    is_crowd: bool = False
    area: float | None = None
    content: str = ""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file with its objects; `size` (height, width) is what the annotations say, None where they do not."""

    name: str
    image: Path
    size: tuple[int, int] | None
    objects: tuple[Annotation, ...]


def require_images(images: Sequence[AnnotatedImage]) -> None:
    """Raise DataError with the first and the number of missing image files when any is missing."""
    missing = [
        one.image for one in images if not os.path.isfile(one.image)
    ]  # unlike Path.is_file, also of endless names
    if missing:
        first = str(missing[0])
        raise DataError(f"{len(missing)} of {len(images)} listed images are missing, the first is {first[:300]}")


class AnnotatedDataset:
    """Images with objects on disk; implements `DenseDataset`.

    Boxes without area are left out, boxes that pass the edge by a pixel are cut there; `repairs` counts both.

    Args:
        classes: class names in index order.
        images: the files and their objects.
        has_masks: whether samples carry masks.
        repairs: what the format has repaired already.

    Raises:
        DataError: a box is not finite, or lies outside of its image, where the annotations give the size.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        images: Sequence[AnnotatedImage],
        has_masks: bool,
        repairs: Counter[str] | None = None,
    ) -> None:
        self.classes, self.has_masks = classes, has_masks
        self.repairs: Counter[str] = Counter(repairs)
        self._images = [self._checked(image) for image in images]

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._images[index].image,)

    def digest(self) -> str:
        """Return a hash of all annotations, for the fingerprint."""
        digest = hashlib.sha256()
        for image in self._images:
            for one in image.objects:
                digest.update(repr((one.label, one.box, one.is_crowd, one.area, one.content)).encode())
        return digest.hexdigest()

    def load(self, index: int) -> Sample:
        """Read one image and decode its masks.

        Raises:
            DataError: the file is damaged, of another size than its annotations say, or a mask is damaged.
        """
        entry = self._images[index]
        image = read_image(entry.image)
        height, width = image.shape[:2]
        if entry.size is not None and entry.size != (height, width):
            raise DataError(
                f"{entry.image}: the image is {height}x{width} (height x width), its annotations say "
                f"{entry.size[0]}x{entry.size[1]}; fix one, and mind EXIF orientation"
            )
        objects = entry.objects
        if entry.size is None:  # only now known
            objects = tuple(one for one in (self._repaired(o, (height, width)) for o in objects) if one)
        masks = self._masks(objects, height, width)
        boxes = [one.box or _tight_box(masks, place) for place, one in enumerate(objects)]
        areas = [math.nan if one.area is None else one.area for one in objects]
        instances = Instances(
            masks=None if masks is None else np.array(masks, bool).reshape(len(objects), height, width),
            boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([one.label for one in objects], np.int64),
            is_crowd=np.array([one.is_crowd for one in objects], bool),
            areas=None if np.isnan(areas).any() else np.array(areas, np.float32),
        )
        return Sample(entry.name, image, np.full((height, width), IGNORE_INDEX, np.uint8), instances)

    def _masks(self, objects: Sequence[Annotation], height: int, width: int) -> list[np.ndarray] | None:
        if not self.has_masks:
            return None
        masks = []
        for one in objects:
            assert one.mask is not None
            try:
                masks.append(one.mask(height, width))
            except ValueError as exc:
                raise DataError(f"{one.where}: the mask is damaged: {exc}; remove the annotation or fix it") from exc
        return masks

    def _checked(self, image: AnnotatedImage) -> AnnotatedImage:
        if image.size is None:
            return image
        kept = [self._repaired(one, image.size) for one in image.objects]
        return AnnotatedImage(image.name, image.image, image.size, tuple(one for one in kept if one))

    def _repaired(self, one: Annotation, size: tuple[int, int]) -> Annotation | None:
        """Return the object with its box inside the image, None when the box has no area."""
        if one.box is None:
            return one
        if not all(map(math.isfinite, one.box)):
            raise DataError(f"{one.where}: expected a box of finite numbers, got {list(one.box)}; fix the annotation")
        x1, y1, x2, y2 = one.box
        if x2 <= x1 or y2 <= y1:
            self.repairs["boxes without area left out"] += 1
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
        self.repairs["boxes cut at the image's edge"] += 1
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if box[2] <= box[0] or box[3] <= box[1]:
            return None
        return Annotation(one.label, box, one.where, one.mask, one.is_crowd, one.area, one.content)


def _tight_box(masks: list[np.ndarray] | None, place: int) -> tuple[float, float, float, float]:
    assert masks is not None
    mask = masks[place]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return (0.0, 0.0, 0.0, 0.0)
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1

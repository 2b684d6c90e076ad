"""Training augmentation with torchvision transforms v2, relative to the resize of deployment.

Evaluation and deployment use `board/preprocess.py` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from edgekd.board.frame import frame
from edgekd.board.masks import Masks
from edgekd.board.run_masks import union
from edgekd.board.specs import Preprocess
from edgekd.core.recipe import Augment
from edgekd.data.base import IGNORE_INDEX, MIN_SIDE, Sample
from edgekd.errors import RecipeError, did_you_mean

# An object is dropped from a view when the visible share of its box is below this, a visible side is below MIN_SIDE, or its
# mask is empty.
MIN_VISIBLE = 0.25


class Coordinates(tv_tensors.Mask):
    """Where the pixels of a view come from: (2, h, w) int32, the row and the column of the image's pixel plus FIRST.

    Before the resize it is an empty mask (0, H, W). Padding is 255, below FIRST.
    """


FIRST = 256


class ResizeJitter(v2.Transform):
    """Resize to `size` (height, width) times a factor drawn log-uniformly from `scale`; masks by nearest neighbour.

    A factor of 1 is the resize of deployment: with `resize` stretch, `size` itself; with letterbox, the largest size inside
    it that keeps the image's aspect.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], resize: str = "stretch") -> None:
        super().__init__()
        self.preprocess, self.scale = Preprocess(size, resize=resize), scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = torch.tensor(self.scale).log()
        factor = float(torch.empty(()).uniform_(float(low), float(high)).exp())
        height, width = F.get_size(flat_inputs[0])
        size = frame((height, width), self.preprocess).size
        return {"size": [max(1, round(side * factor)) for side in size]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, Labels):
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return F.resize(inpt, params["size"])
        if isinstance(inpt, Coordinates):
            rows, columns = (_nearest(*sides) for sides in zip(inpt.shape[-2:], params["size"], strict=True))
            both = torch.stack([rows[:, None].expand(-1, len(columns)), columns[None].expand(len(rows), -1)])
            return tv_tensors.wrap(both + FIRST, like=inpt)
        if isinstance(inpt, tv_tensors.Mask):
            # As a plain tensor: older torchvisions resize a Mask by NEAREST, half a pixel off (pytorch/vision #9188).
            plain = inpt.as_subclass(Tensor).reshape(-1, *inpt.shape[-2:])
            resized = F.resize(plain, params["size"], interpolation=InterpolationMode.NEAREST_EXACT)
            return tv_tensors.wrap(resized.reshape(*inpt.shape[:-2], *params["size"]), like=inpt)
        return F.resize(inpt, params["size"], interpolation=InterpolationMode.BILINEAR, antialias=True)


def _nearest(before: int, after: int) -> Tensor:
    """Return the pixel that nearest-exact resizing takes for each of `after` pixels along a side of `before`, (after,) int32."""
    places = torch.arange(before, dtype=torch.float32).reshape(1, 1, before, 1)
    return F.resize(places, [after, 1], interpolation=InterpolationMode.NEAREST_EXACT).flatten().to(torch.int32)


class ClassMap(tv_tensors.Mask):
    """Mask (H, W) uint8 of class indices, 255 where they are ignored."""


class Labels(tv_tensors.TVTensor):
    """Class indices (N,) int64 of objects."""


class SwappingFlip(v2.RandomHorizontalFlip):
    """Flip horizontally, and swap pairs of classes such as left and right, in class maps and in labels of objects."""

    def __init__(self, p: float, pairs: Iterable[tuple[int, int]]) -> None:
        super().__init__(p)
        self.table = torch.arange(256)  # class index -> its partner's
        for one, other in pairs:
            self.table[one], self.table[other] = other, one

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        flipped = super().transform(inpt, params)
        if not isinstance(inpt, ClassMap | Labels):
            return flipped
        swapped = self.table[flipped.as_subclass(Tensor).long()].to(inpt.dtype)
        return tv_tensors.wrap(swapped, like=inpt)


def training_transform(
    augment: Augment, size: tuple[int, int], resize: str = "stretch", classes: Sequence[str] = ()
) -> v2.Transform:
    """Return the transform of a Pillow image, masks, boxes and labels to the training crop; padding is 255 in a mask.

    An image smaller than the crop has a random position in it; deployment with letterbox centres it.

    Pillow's C code augments one small image several times faster than torch's operators.

    classes: names in index order, for `augment.flip_pairs`.

    Raises:
        RecipeError: `augment.flip_pairs` names another class.
    """
    fill = {Image.Image: 0, tv_tensors.Mask: IGNORE_INDEX, ClassMap: IGNORE_INDEX}
    steps: list[v2.Transform] = [
        ResizeJitter(size, augment.scale, resize),
        v2.RandomCrop(augment.crop or size, pad_if_needed=True, fill=fill),
        SwappingFlip(augment.flip, swapped_classes(augment, classes)),
    ]
    if augment.flip_vertical > 0:
        steps.append(v2.RandomVerticalFlip(augment.flip_vertical))
    if augment.color > 0:
        c = augment.color
        steps.append(v2.ColorJitter(brightness=c, contrast=c, saturation=c))
    return v2.Compose(steps)


def swapped_classes(augment: Augment, classes: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of class indices that a horizontal flip swaps; RecipeError for a name that no class has."""
    for name in (name for pair in augment.flip_pairs for name in pair):
        if name not in classes:
            raise RecipeError(f"data.augment.flip_pairs: no class is called {name!r}{did_you_mean(name, classes)}")
    return [(classes.index(one), classes.index(other)) for one, other in augment.flip_pairs]


class Objects(NamedTuple):
    """Objects of one view.

    boxes: (M, 4) float32 x1, y1, x2, y2 in pixels of the view, inside it.
    labels: (M,) int64 class indices.
    masks: (M, H/2, W/2) uint8, the number of pixels of a 2x2 cell that belong to the object; None for boxes only.
    ignored: (C, 4) float32, boxes that are neither object nor background for the loss: crowds, difficult objects, and
        objects of which the view shows too little; None: no such boxes.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    ignored: Tensor | None = None


class View(NamedTuple):
    """One augmented sample: `image` (3, H, W) uint8, `mask` (H, W) uint8, and `objects` where the task has them.

    The mask holds classes, 255 where they are ignored; with objects it is 1 inside them and 0 elsewhere.
    """

    image: Tensor
    mask: Tensor
    objects: Objects | None = None


def augmented(sample: Sample, transform: v2.Transform, seed: int, task: str = "semantic") -> View:
    """Return the augmented sample for a task; the same seed gives the same result."""
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.default_generator.manual_seed(seed)  # CPU only: seeding CUDA would take a tenth of the time
        if task == "semantic":
            image, mask = transform(Image.fromarray(sample.image), ClassMap(torch.from_numpy(sample.mask)))
            return View(F.pil_to_tensor(image), mask.as_subclass(Tensor).contiguous())
        return _with_objects(sample, transform, has_masks=task == "instance")


def _with_objects(sample: Sample, transform: v2.Transform, has_masks: bool) -> View:
    assert sample.instances is not None
    instances, size = sample.instances, sample.image.shape[:2]
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(instances.boxes_xyxy).float().reshape(-1, 4),
        format="XYXY",
        canvas_size=size,
        clamping_mode=None,
    )
    whole = Coordinates(torch.zeros((0, *size), dtype=torch.int32))
    labels = Labels(torch.from_numpy(instances.labels))
    image, places, boxes, labels = transform(Image.fromarray(sample.image), whole, boxes, labels)
    source = _Source(places.as_subclass(Tensor).numpy())
    clipped, is_shown = _visible(boxes.as_subclass(Tensor), source.size)
    is_shown &= ~torch.from_numpy(instances.is_ignored)
    halved = None
    if has_masks:
        assert instances.masks is not None
        halved = _halved(instances.masks, is_shown, source)
        has_pixels = (halved > 0).flatten(1).any(dim=1)
        halved, is_shown = halved[has_pixels], is_shown.masked_scatter(is_shown, has_pixels)
    has_area = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
    objects = Objects(clipped[is_shown], labels.as_subclass(Tensor)[is_shown], halved, clipped[has_area & ~is_shown])
    return View(F.pil_to_tensor(image), torch.from_numpy(source.drawn(_region(sample), IGNORE_INDEX)), objects)


class _Source:
    """The image's row of each row of a view, and the column of each column; -1 where there is padding."""

    def __init__(self, places: np.ndarray) -> None:
        found = np.where(places < FIRST, -1, places - FIRST)
        self.rows, self.columns = found[0].max(axis=1), found[1].max(axis=0)
        self.size = (len(self.rows), len(self.columns))

    def drawn(self, image: np.ndarray, padding: int) -> np.ndarray:
        """Return the view (h, w) of one channel (H, W) of the image."""
        view = image[self.rows][:, self.columns]
        view[self.rows < 0] = view[:, self.columns < 0] = padding
        return view

    def window(self, corner: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the view's rows and columns that show the pixels x1, y1, x2, y2 of the image."""
        x1, y1, x2, y2 = corner
        return np.flatnonzero((self.rows >= y1) & (self.rows < y2)), np.flatnonzero(
            (self.columns >= x1) & (self.columns < x2)
        )


def _region(sample: Sample) -> np.ndarray:
    """Return (H, W) uint8: 1 inside objects, by their masks or, without masks, their boxes."""
    instances = sample.instances
    assert instances is not None
    if instances.masks is not None:
        return union(instances.masks).view(np.uint8)
    region = np.zeros(sample.image.shape[:2], np.uint8)
    for x1, y1, x2, y2 in np.round(instances.boxes_xyxy).astype(int):
        region[max(0, y1) : y2, max(0, x1) : x2] = 1
    return region


def _visible(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return boxes (M, 4) clipped to the view, and which of them show enough of their object (M,) bool."""
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    clipped = boxes.clamp(min=0).minimum(limit)
    sides, whole = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    is_shown = sides.prod(dim=1) >= MIN_VISIBLE * whole.prod(dim=1)
    return clipped, is_shown & (sides >= MIN_SIDE).all(dim=1)


def _halved(masks: Masks, is_shown: Tensor, source: _Source) -> Tensor:
    """Return (M, H/2, W/2) uint8 of the M objects that are shown: the number of pixels in each 2x2 cell of the view."""
    numbers = is_shown.nonzero().flatten().tolist()
    height, width = source.size[0] // 2, source.size[1] // 2
    halved = np.zeros((len(numbers), height, width), np.uint8)
    for one, number in zip(halved, numbers, strict=True):
        x1, y1, x2, y2 = masks.corners[number].tolist()
        rows, columns = source.window((x1, y1, x2, y2))
        if not rows.size or not columns.size:
            continue
        top, left = rows[0] // 2, columns[0] // 2
        bottom, right = rows[-1] // 2 + 1, columns[-1] // 2 + 1
        cells = np.zeros((2 * (bottom - top), 2 * (right - left)), np.uint8)
        part = masks.parts[number][source.rows[rows] - y1][:, source.columns[columns] - x1]
        cells[rows[0] - 2 * top : rows[-1] - 2 * top + 1, columns[0] - 2 * left : columns[-1] - 2 * left + 1] = part
        summed = cells[::2, ::2] + cells[1::2, ::2] + cells[::2, 1::2] + cells[1::2, 1::2]
        one[top:bottom, left:right] = summed[: height - top, : width - left]  # without the half cell of an odd side
    return torch.from_numpy(halved)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: on small images, waking and joining threads costs more than the work itself.

    Measured at 96x128 on two busy cores: 46 ms per image with two threads, 5 ms with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""Training augmentation with torchvision transforms v2, relative to the geometry that the network is deployed with.

Evaluation and deployment do not come here: they use `board/preprocess.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from edgekd.core.recipe import Augment
from edgekd.data.base import IGNORE_INDEX, Sample


class ResizeJitter(v2.Transform):
    """Resize to `size` (height, width) times a factor drawn log-uniformly from `scale`; masks by nearest neighbour.

    A factor of 1 is exactly what deployment does to an image (stretch to the network's input size).
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = torch.tensor(self.scale).log()
        factor = float(torch.empty(()).uniform_(float(low), float(high)).exp())
        return {"size": [max(1, round(side * factor)) for side in self.size]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        mask = isinstance(inpt, tv_tensors.Mask)
        mode = InterpolationMode.NEAREST_EXACT if mask else InterpolationMode.BILINEAR
        return F.resize(inpt, params["size"], interpolation=mode, antialias=not mask)


def training_transform(augment: Augment, size: tuple[int, int]) -> v2.Transform:
    """Return the transform of a Pillow image and a Mask to the training crop; padding is ignored in the mask.

    Pillow's C code augments one small image several times faster than torch's operators.
    """
    fill = {Image.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
    steps: list[v2.Transform] = [
        ResizeJitter(size, augment.scale),
        v2.RandomCrop(augment.crop or size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(augment.flip),
    ]
    if augment.color > 0:
        c = augment.color
        steps.append(v2.ColorJitter(brightness=c, contrast=c, saturation=c))
    return v2.Compose(steps)


def augmented(sample: Sample, transform: v2.Transform, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the augmented image (3, H, W) uint8 and mask (H, W) uint8; the same seed gives the same result."""
    image = Image.fromarray(sample.image)
    mask = tv_tensors.Mask(torch.from_numpy(sample.mask))
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        image, mask = transform(image, mask)
    return F.pil_to_tensor(image), mask.as_subclass(torch.Tensor).contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: on images this small, waking and joining threads costs more than the work itself.

    Measured at 96x128 on two busy cores: 46 ms per image with two threads, 5 ms with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

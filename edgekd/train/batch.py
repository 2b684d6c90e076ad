"""One training batch on the device: images, labels and class weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from edgekd.data.augment import Objects


@dataclass(frozen=True)
class Batch:
    """One batch: images (B, 3, H, W) float in [0, 1]; masks (B, H, W) int64 class indices, 255 = ignore.

    For detection and instances, masks are 1 inside objects and 0 elsewhere, and `objects` has the objects of each image.
    class_weights: (K,) float, weights of the classes in a segmenter's task loss; None: every pixel has weight 1.
    """

    images: Tensor
    masks: Tensor
    objects: list[Objects] | None = None
    class_weights: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """(B, H, W) bool: pixels that carry a label. Segmenters' losses and all distillation terms exclude padding and void;
        for a detector's loss padding is background."""
        return self.masks != 255

    @cached_property
    def labelled(self) -> Tensor:
        """(B, 1, H, W) float: 1 where a pixel carries a label, else 0: the weights for pooling feature maps."""
        return self.valid.float().unsqueeze(1)

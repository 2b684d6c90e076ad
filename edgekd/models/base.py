"""What a network is here: logits and a feature pyramid with declared channels and strides.

A family is one file `models/families/<name>.py` with

    Options                  a frozen dataclass: the family's own options in a recipe
    VARIANTS                 the names a recipe may use as `variant`; None when `build` checks the name itself
    build(variant, task, num_classes, options) -> DenseModel
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives.

    logits: (B, K, H, W) at the input's size.
    features: stride -> (B, C, H/stride, W/stride), the backbone's pyramid, fine to coarse.
    decoder: the decoder's last feature map before the classifier (B, C, h, w).
    """

    logits: Tensor
    features: dict[int, Tensor]
    decoder: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name: `logits`, `decoder`, `features/<stride>`."""
        features = {f"features/{stride}": value for stride, value in self.features.items()}
        return {"logits": self.logits, "decoder": self.decoder, **features}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Outputs:
        """Return the outputs that `tensors` was called on."""
        strides = sorted(int(name.partition("/")[2]) for name in tensors if name.startswith("features/"))
        features = {stride: tensors[f"features/{stride}"] for stride in strides}
        return cls(tensors["logits"], features, tensors["decoder"])


class DenseModel(nn.Module, ABC):
    """A network whose input is RGB in [0, 1]; it knows its own normalisation.

    Teacher and student may have different `mean` and `std`: each normalises for itself, so one augmented batch
    serves both. `forward_normalized` is what an export without in-graph preprocessing takes.

    Attributes:
        channels: stride -> channels of `Outputs.features`, fine to coarse (a contract test compares with the truth).
        decoder_channels: channels of `Outputs.decoder`.
        size_divisor: input height and width must be divisible by it.
        unused_weights: beginnings of names that a checkpoint may hold and the network has no use for (auxiliary heads).
    """

    channels: dict[int, int]
    decoder_channels: int
    size_divisor: int
    mean: Tensor
    std: Tensor
    unused_weights: tuple[str, ...] = ()

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        """Run on images (B, 3, H, W) in [0, 1]."""
        return self.forward_normalized((images - self.mean) / self.std)

    @abstractmethod
    def forward_normalized(self, images: Tensor) -> Outputs:
        """Run on images (B, 3, H, W) that are already normalised with `mean` and `std`."""

    def weights_module(self) -> nn.Module:
        """Return the module whose names a weight file uses: the network itself, unless it wraps another."""
        return self

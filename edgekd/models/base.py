"""Networks: heads and a feature pyramid with declared channels and strides; the protocol of a family.

A family is one file `models/families/<name>.py` with

    Options                  a frozen dataclass of `option` fields: the keys under `teacher.options` or `student.options`.
                             `encoder_weights` is the name of start weights; a trained network is built without them
    TASKS                    the tasks it has networks for
    VARIANTS                 the valid names of `variant` in a recipe; None when `build` checks the name itself
    build(variant, task, num_classes, options) -> DenseModel
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """The outputs of one forward pass.

    heads: the deployed tensors by name: `logits` (B, K, H, W) at the input's size for a segmenter, those of
        `models/heads.py` for a detector.
    features: stride -> (B, C, H/stride, W/stride), the backbone's pyramid, fine to coarse.
    decoder: the last feature map that all heads share (B, C, h, w); for a detector the finest of its `levels`.
    levels: stride -> (B, C, H/stride, W/stride), the pyramid of a detector, fine to coarse; empty for a segmenter.
    auxiliary: further logits (B, K, H, W) of a segmenter in training mode, by name; trained, not exported.
    auxiliary_weight: weight of each of them in the task loss.
    """

    heads: dict[str, Tensor]
    features: dict[int, Tensor]
    decoder: Tensor
    levels: dict[int, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    auxiliary_weight: float = 0.0

    @property
    def logits(self) -> Tensor:
        """(B, K, H, W) class logits of a segmenter; KeyError for a detector."""
        return self.heads["logits"]

    def tensors(self) -> dict[str, Tensor]:
        """Return all but the auxiliary tensors by name: `heads/<name>`, `features/<stride>`, and `decoder` or `levels/<stride>`."""
        heads = {f"heads/{name}": value for name, value in self.heads.items()}
        features = {f"features/{stride}": value for stride, value in self.features.items()}
        levels = {f"levels/{stride}": value for stride, value in self.levels.items()}
        return {**heads, **features, **(levels or {"decoder": self.decoder})}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Outputs:
        """Rebuild outputs from the mapping that `tensors` returned."""
        heads, features, levels = (
            {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
            for kind in ("heads/", "features/", "levels/")
        )
        by_stride, pyramid = ({int(s): maps[s] for s in sorted(maps, key=int)} for maps in (features, levels))
        return cls(heads, by_stride, pyramid[min(pyramid)] if pyramid else tensors["decoder"], pyramid)


class DenseModel(nn.Module, ABC):
    """A network whose input is RGB in [0, 1]. It normalises the input itself.

    Teacher and student may have different `mean` and `std`, and get the same augmented batch. An export without in-graph
    preprocessing uses `forward_normalized`.

    Attributes:
        channels: stride -> channels of `Outputs.features`, fine to coarse (a contract test compares with a forward pass).
        decoder_channels: channels of `Outputs.decoder` and `Outputs.levels`.
        level_strides: strides of `Outputs.levels`, fine to coarse.
        size_divisor: input height and width must be divisible by it.
        fixed_size: the only input size (height, width) of a network that takes no other.
        unused_weights: prefixes of weights in a checkpoint that the network does not use (auxiliary heads).
    """

    channels: dict[int, int]
    decoder_channels: int
    level_strides: tuple[int, ...] = ()
    size_divisor: int
    fixed_size: tuple[int, int] | None = None
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


class ReadyDetector(DenseModel):
    """A detector with its own decoding and suppression: a teacher with features, but without edgekd's heads.

    It has no task loss here and is not exported.
    """

    @abstractmethod
    def detect_normalized(self, images: Tensor) -> dict[str, Tensor]:
        """Return the detections in normalised images (B, 3, H, W), by the names that `board/detection.py` reads.

        `found_boxes` (B, N, 4) pixels of the input, `found_scores` (B, N), 0 beyond the last detection,
        `found_labels` (B, N) int64, and for instances `found_masks` (B, N, h, w), probabilities over the box.
        """

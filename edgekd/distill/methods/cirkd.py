"""Cross-image relations: how much each cell resembles every cell of every image of the batch.

Source: Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022, arXiv
2204.06986: its mini-batch pixel-to-pixel term.

    S_ij = F_i F_j^T          N x N cosines of the cells of image i and those of image j
    P_ij = softmax_row( S_ij / tau )
    L = minibatch * mean over the B^2 pairs of images and their rows of KL( P^t_ij || P^s_ij )

Weight: 1, the paper's, beside pixel KL with weight 1 (our `kd`).
Deviations: the two memory queues (pixel to pixel and pixel to region) are left out, and so is the pixel KL: add `kd` to
the recipe. Cells are made by average pooling to at most `tokens`, and to as many as keep the rows of one image within
64 MiB. Images of other devices take no part. Cells of which half or more pixels carry no label are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Pyramid, Temperature, Weight
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weight, temperature and maps."""

    minibatch: Weight = option(1.0, "Weight of the term.")
    temperature: Temperature = option(0.1, "Temperature tau of the relation rows.")
    at: taps.MapName = option("decoder", "Map to compare: `decoder`, or `backbone` (its coarsest stage).")
    tokens: int = option(256, "Max cells per image. The rows of one image take batch * tokens^2 floats.")

    def __post_init__(self) -> None:
        taps.check_tokens(self.tokens, "cirkd")


class Method(nn.Module):
    """One term, `minibatch`; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        for pyramid in (teacher, student):
            taps.channels(pyramid, options.at, "cirkd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over pairs of images and valid rows; 0 when no cell is labelled."""
        options = self.options
        bounded = max(2, int(taps.MAX_TOKENS / math.sqrt(batch.masks.shape[0])))
        map_t, map_s, valid = taps.pair(teacher, student, batch, options.at, min(options.tokens, bounded))
        unit_t, unit_s = (relations.unit_cells(x) for x in (map_t, map_s))
        loss = cross_image_loss(unit_t, unit_s, valid.flatten(1), options.temperature)
        return {"minibatch": options.minibatch * loss}


def cross_image_loss(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return L for unit vectors (B, N, C) and valid (B, N) bool."""
    total = student.new_zeros(())
    has_cells = valid.any(dim=1).float()  # (B,)
    for number, rows_valid in enumerate(valid):
        # One image's rows at a time, made again for the gradient: all B of them would be B^2 N^2 floats.
        kl = checkpoint(_rows_kl, number, teacher, student, valid, temperature, use_reentrant=False)  # (B, N)
        total = total + (kl * rows_valid * has_cells.unsqueeze(1)).sum()
    return total / (valid.sum() * has_cells.sum()).clamp_min(1)


def _rows_kl(number: int, teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return KL (B, N) of the rows of one image against every image."""
    log_t, log_s = (
        F.log_softmax(
            (every[number] @ every.transpose(1, 2) / temperature).masked_fill(~valid.unsqueeze(1), -1e4), dim=2
        )
        for every in (teacher, student)
    )  # (B, N, N)
    return (log_t.exp() * (log_t - log_s)).sum(dim=2)

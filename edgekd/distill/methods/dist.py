"""DIST: maximises the correlation of the student's scores with the teacher's, over classes and over pixels.

Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536.

    y = softmax( z / tau )
    L_inter = inter * tau^2 * mean over pixels  of ( 1 - r( y_s[p, :], y_t[p, :] ) )        r: Pearson's correlation
    L_intra = intra * tau^2 * mean over classes of ( 1 - r( y_s[:, c], y_t[:, c] ) )        over the batch's pixels

Weights: beta = gamma = 1 and tau = 1, the paper's for segmentation.
Deviations: "pixels" are the labelled means of cells of `stride` image pixels, because neighbouring pixels of an upsampled
map repeat each other; cells of which half or more carry no label are left out, and so is a class (or a pixel) whose
scores the teacher leaves constant, as their correlation is not defined. With two classes there is no `inter`: the
correlation of (p, 1 - p) with (q, 1 - q) is 1 or -1 for all p and q, and has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import relations
from edgekd.distill.base import Pyramid, Temperature, Weight, check_at_least
from edgekd.distill.logits import pooled
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """Weights and temperature."""

    inter: Weight = option(1.0, "Weight of the inter-class term (correlation over the classes of a cell).")
    intra: Weight = option(1.0, "Weight of the intra-class term (correlation over the cells of a class).")
    temperature: Temperature = option(1.0, "Temperature tau.")
    stride: int = option(4, "Image pixels per cell of the pooled logits.")

    def __post_init__(self) -> None:
        check_at_least(1, self.stride, "dist.stride")


class Method(nn.Module):
    """Terms `inter` (for three classes or more) and `intra`; no adapter.

    Raises:
        RecipeError: two classes and no weight for `intra`.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options, self.has_inter = options, student.num_classes > 2
        if not self.has_inter and not options.intra:
            raise RecipeError(
                "dist.intra: expected a weight above 0 for two classes, whose `inter` teaches nothing, got 0"
            )

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms; 0 when no cell is labelled."""
        options = self.options
        scale = options.temperature**2
        z_t, valid = pooled(teacher.logits.detach(), batch.valid, options.stride)
        z_s, _ = pooled(student.logits, batch.valid, options.stride)
        y_t, y_s = ((z / options.temperature).softmax(dim=1) for z in (z_t, z_s))  # (B, K, h, w)
        terms = {}
        if self.has_inter:
            over_classes, has_classes = relations.correlation(y_t, y_s, torch.ones_like(valid), (1,))  # (B, 1, h, w)
            terms["inter"] = options.inter * scale * _distance(over_classes, has_classes & valid)
        over_pixels, has_pixels = relations.correlation(y_t, y_s, valid, (0, 2, 3))  # (1, K, 1, 1)
        return {**terms, "intra": options.intra * scale * _distance(over_pixels, has_pixels)}


def _distance(correlations: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of 1 - r over the counted entries; 0 without any."""
    return ((1 - correlations) * counted).sum() / counted.sum().clamp_min(1)

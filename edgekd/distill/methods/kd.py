"""Logit distillation: per-pixel KL between the softened class distributions.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2; per pixel as
in dense prediction. Deviation: pixels without a label (255: void, padding) are left out.

    L = T^2 * mean over valid pixels of KL( softmax(z_t / T) || softmax(z_s / T) )
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.base import Batch, Pyramid
from edgekd.models.base import Outputs


@dataclass(frozen=True)
class Options:
    """temperature: T. At T = 1 the term has the scale of the cross-entropy; T^2 keeps gradients comparable above."""

    temperature: float = 1.0


class Method(nn.Module):
    """One term, `logits`."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.temperature = options.temperature

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean KL over the valid pixels of the batch; 0 when there are none."""
        return {"logits": pixel_kl(teacher.logits, student.logits, batch.valid, self.temperature)}


def pixel_kl(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return T^2 * mean KL(teacher || student) over classes, for logits (B, K, H, W) and valid (B, H, W) bool."""
    log_t = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    log_s = F.log_softmax(student.float() / temperature, dim=1)
    kl = torch.sum(log_t.exp() * (log_t - log_s), dim=1)  # (B, H, W)
    weight = valid.to(kl.dtype)
    return temperature**2 * (kl * weight).sum() / weight.sum().clamp_min(1)

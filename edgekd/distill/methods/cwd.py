"""Channel-wise distillation: each channel is a distribution over the image; KL between teacher's and student's.

Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256, equations
2 to 4, on logits (the released setting: tau 4, weight 3).

    phi_c = softmax over pixels of z_c / tau
    L = tau^2 / C * sum_c KL( phi_c(z_t) || phi_c(z_s) ),  mean over the batch

Deviations: logits are average-pooled to cells of `stride` pixels first, because neighbouring pixels of an upsampled map
repeat each other; pixels without a label are left out of the average, and cells of which half or more have none are
left out of the softmax.
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
    """temperature: tau. stride: image pixels per cell of the pooled logits."""

    temperature: float = 4.0
    stride: int = 4


class Method(nn.Module):
    """One term, `channels`."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.temperature, self.stride = options.temperature, options.stride

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean KL over channels and images."""
        labelled = batch.valid.float().unsqueeze(1)  # (B, 1, H, W)
        share = F.avg_pool2d(labelled, self.stride)  # (B, 1, h, w)
        valid = share > 0.5
        pooled = (
            F.avg_pool2d(z.float() * labelled, self.stride) / share.clamp_min(0.5)
            for z in (teacher.logits.detach(), student.logits)
        )
        log_t, log_s = (self._log_softmax(z, valid) for z in pooled)
        kl = torch.where(valid.flatten(2), log_t.exp() * (log_t - log_s), 0.0).sum(dim=2)  # (B, K)
        return {"channels": self.temperature**2 * kl.mean()}

    def _log_softmax(self, logits: Tensor, valid: Tensor) -> Tensor:
        # A large negative number, not -inf: an image without any valid cell must stay finite.
        masked = (logits / self.temperature).masked_fill(~valid, -1e4)
        return F.log_softmax(masked.flatten(2), dim=2)  # (B, K, h*w)

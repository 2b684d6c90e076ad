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

from torch import Tensor, nn

from edgekd.distill.base import Batch, Pyramid, check_at_least
from edgekd.distill.logits import channel_kl, pooled
from edgekd.models.base import Outputs

TASKS = ("semantic",)


@dataclass(frozen=True)
class Options:
    """temperature: tau. stride: image pixels per cell of the pooled logits."""

    temperature: float = 4.0
    stride: int = 4

    def __post_init__(self) -> None:
        check_at_least(1, self.stride, "cwd.stride")


class Method(nn.Module):
    """One term, `channels`; no adapter."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.temperature, self.stride = options.temperature, options.stride

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean KL over channels and images."""
        (map_t, valid), (map_s, _) = (pooled(z, batch.valid, self.stride) for z in (teacher.logits, student.logits))
        return {"channels": channel_kl(map_t, map_s, valid, self.temperature)}

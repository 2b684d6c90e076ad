"""Losses on class logits: KL per pixel, means over cells, each class as a distribution over the image.

All functions compute in float32, also under autocast; logits are (B, K, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.errors import RecipeError


def kl_per_pixel(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return (B, H, W): T^2 * KL( softmax_c(z_t / T) || softmax_c(z_s / T) )."""
    log_t = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    log_s = F.log_softmax(student.float() / temperature, dim=1)
    return temperature**2 * torch.sum(log_t.exp() * (log_t - log_s), dim=1)


def pixel_kl(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return the mean of `kl_per_pixel` over valid (B, H, W) bool; 0 when there are none."""
    # A product: `where` on the logits would keep infinite values under a void label from spreading, at 1.5 times the cost.
    weight = valid.float()
    return (kl_per_pixel(teacher, student, temperature) * weight).sum() / weight.sum().clamp_min(1)


def pooled(logits: Tensor, valid: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return the mean over the labelled pixels of each cell, and which cells are valid.

    A cell is `stride` x `stride` pixels of the image; it is valid when more than half of it is labelled.

    Returns:
        Logits (B, K, h, w) float32 and (B, 1, h, w) bool.

    Raises:
        RecipeError: a cell is larger than the image.
    """
    if stride > min(valid.shape[-2:]):
        raise RecipeError(f"stride: expected at most {min(valid.shape[-2:])}, the crop's smaller side, got {stride}")
    labelled = valid.float().unsqueeze(1)  # (B, 1, H, W)
    share = F.avg_pool2d(labelled, stride)
    # `where`, not a product: an infinite value under a void label must not spread.
    masked = torch.where(labelled > 0, logits.float(), 0.0)
    return F.avg_pool2d(masked, stride) / share.clamp_min(0.5), share > 0.5


def log_shares(logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return (B, K, h*w): the log of each class's distribution over the valid cells, softmax_i(z / tau)."""
    # A large negative number, not -inf: an image without any valid cell must stay finite.
    masked = (logits / temperature).masked_fill(~valid, torch.finfo(torch.float32).min / 2)
    return F.log_softmax(masked.flatten(2), dim=2)


def channel_kl(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return tau^2 * the mean over images and classes of KL between the distributions of `log_shares`."""
    log_t, log_s = (log_shares(z, valid, temperature) for z in (teacher.detach(), student))
    kl = torch.where(valid.flatten(2), log_t.exp() * (log_t - log_s), 0.0).sum(dim=2)  # (B, K)
    return temperature**2 * kl.mean()

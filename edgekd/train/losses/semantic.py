"""The task loss of segmenters: cross-entropy per labelled pixel, with class weights where the recipe has `class_balance`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.base import IGNORE_INDEX
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch


def semantic_loss(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return `pixels`, the weighted cross-entropy's mean over the labelled pixels of the batch; 0 without labelled pixels.

    With auxiliary logits there is also `auxiliary`, the sum of their cross-entropies times their weight.
    """
    terms = {"pixels": _cross_entropy(outputs.logits, batch)}
    if outputs.auxiliary:
        losses = [_cross_entropy(logits, batch) for logits in outputs.auxiliary.values()]
        terms["auxiliary"] = outputs.auxiliary_weight * torch.stack(losses).sum()
    return terms


def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    total = F.cross_entropy(
        logits.float(), batch.masks, weight=batch.class_weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / batch.valid.sum().clamp_min(1)


def balanced(shares: Sequence[float], balance: float) -> Tensor:
    """Return (K,) float32 weights of classes, share^-balance scaled so that the mean over the split's labelled pixels is 1.

    A balance of 1 is the inverse frequency, 0.5 its square root. A class without pixels has weight 0.

    Args:
        shares: fraction of each class in the labelled pixels of the training split, in [0, 1], their sum 1.
        balance: the exponent, in [0, 1].
    """
    part = torch.tensor(shares, dtype=torch.float64)
    raw = torch.where(part > 0, part**-balance, 0.0)
    return (raw / (part * raw).sum()).float()

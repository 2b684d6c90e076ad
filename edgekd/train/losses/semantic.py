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
    """Return `pixels`, the weighted cross-entropy's mean over the labelled pixels of the batch; 0 without labelled pixels."""
    total = F.cross_entropy(
        outputs.logits.float(), batch.masks, weight=batch.class_weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return {"pixels": total / batch.valid.sum().clamp_min(1)}


def balanced(shares: Sequence[float], balance: float) -> Tensor:
    """Return (K,) float32 weights of classes, share^-balance scaled so that the mean over the split's labelled pixels is 1.

    A balance of 1 is the inverse frequency, 0.5 its square root. A class without pixels has weight 0.

    Args:
        shares: of each class in the labelled pixels of the training split, in [0, 1], their sum 1.
        balance: the exponent, in [0, 1].
    """
    part = torch.tensor(shares, dtype=torch.float64)
    raw = torch.where(part > 0, part**-balance, 0.0)
    return (raw / (part * raw).sum()).float()

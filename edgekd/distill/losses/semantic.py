"""What a segmenter learns from masks: cross-entropy per labelled pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.data.base import IGNORE_INDEX
from edgekd.distill.base import Batch
from edgekd.models.base import Outputs


def semantic_loss(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return `pixels`, the mean over the labelled pixels of the batch; 0 where there are none."""
    total = F.cross_entropy(outputs.logits.float(), batch.masks, ignore_index=IGNORE_INDEX, reduction="sum")
    return {"pixels": total / batch.valid.sum().clamp_min(1)}

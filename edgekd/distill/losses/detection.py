"""What a detector or an instance segmenter learns from boxes and masks.

    scores   binary cross-entropy against the assigned quality, focused where it is off: |q - s|^2 BCE(s, q)
             (quality focal loss, GFL, arXiv 2006.04388, section 3.2)
    boxes    1 - GIoU (arXiv 1902.09630), and the cross-entropy of a side's distribution with the two bins that enclose
             the true distance (distribution focal loss, GFL, section 3.2)
    masks    binary cross-entropy of the assembled mask inside the object's box (YOLACT, arXiv 1904.02689, section 3),
             interpolated as at inference to twice the prototypes' size, with the share of a cell that is the object's

Scores, boxes and masks are weighted by the quality of their point and divided by the sum of all qualities of the batch
(over all devices it is each device's own). The sum of the three is the task loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from edgekd.data.augment import Objects
from edgekd.distill.base import Batch
from edgekd.distill.losses.assign import Assignment, assign, inside_boxes
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS, decode, points

BOX, DISTRIBUTION, MASK = (
    2.0,
    0.5,
    1.0,
)  # box: GFL's; distribution: twice GFL's; YOLACT's mask weight is on another scale
MASKS_PER_IMAGE = 32  # points whose mask is assembled for the loss; bounds its memory


def detection_loss(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return the terms `scores`, `boxes`, `distributions` and, with prototypes, `masks` of a batch.

    Args:
        outputs: with the heads of a `DetectionHead`, and `prototypes` (B, P, h, w) for instances.
        batch: with the objects of each image.
    """
    assert batch.objects is not None
    heads, objects = outputs.heads, batch.objects
    flat = flattened(heads)
    boxes = decode(flat.boxes.float(), flat.centres, flat.strides)  # (B, N, 4)
    probabilities = flat.scores.float().sigmoid()
    found = [
        assign(probabilities[i].detach(), boxes[i].detach(), flat.centres, flat.strides, one.boxes, one.labels)
        for i, one in enumerate(objects)
    ]
    total = torch.stack([one.quality.sum() for one in found]).sum().clamp_min(1.0)
    parts = [_of_image(flat, i, boxes[i], objects[i], found[i]) for i in range(len(objects))]
    terms = {name: torch.stack([part[name] for part in parts]).sum() / total for name in parts[0]}
    terms["scores"] = _score_loss(flat, objects, found) / total
    if "prototypes" in heads:
        masks = [_mask_loss(flat, heads["prototypes"], i, objects[i], found[i]) for i in range(len(objects))]
        terms["masks"] = MASK * torch.stack(masks).sum() / total
    return terms


@dataclass(frozen=True)
class Flat:
    """All points of all levels: scores (B, N, K), boxes (B, N, 4 * BINS), coefficients (B, N, P) or None, centres
    (N, 2) and strides (N,) in pixels."""

    scores: Tensor
    boxes: Tensor
    coefficients: Tensor | None
    centres: Tensor
    strides: Tensor


def flattened(heads: dict[str, Tensor], strides: tuple[int, ...] = ()) -> Flat:
    """Return the levels of the given strides side by side, fine to coarse; by default all."""
    strides = strides or tuple(sorted(int(name.partition("_")[2]) for name in heads if name.startswith("scores_")))

    def joined(kind: str) -> Tensor:
        return torch.cat([heads[f"{kind}_{stride}"].flatten(2) for stride in strides], dim=2).transpose(1, 2)

    sizes = {stride: tuple(heads[f"scores_{stride}"].shape[-2:]) for stride in strides}
    device = heads[f"scores_{strides[0]}"].device
    centres = torch.cat([points((size[0], size[1]), stride, device) for stride, size in sizes.items()])
    lengths = [torch.full((size[0] * size[1],), float(stride), device=device) for stride, size in sizes.items()]
    coefficients = joined("coefficients") if f"coefficients_{strides[0]}" in heads else None
    return Flat(joined("scores"), joined("boxes"), coefficients, centres, torch.cat(lengths))


def _score_loss(flat: Flat, objects: list[Objects], found: list[Assignment]) -> Tensor:
    scores = flat.scores.float()
    target, counted = torch.zeros_like(scores), torch.ones_like(scores)
    for i, (one, taken) in enumerate(zip(objects, found, strict=True)):
        positive = taken.object_of >= 0
        target[i, positive, one.labels[taken.object_of[positive]]] = taken.quality[positive]
        if one.ignored is not None and len(one.ignored):
            counted[i, inside_boxes(flat.centres, one.ignored).any(dim=0) & ~positive] = 0
    entropy = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return (entropy * (target - scores.sigmoid()).square() * counted).sum()


def _of_image(flat: Flat, i: int, boxes: Tensor, objects: Objects, found: Assignment) -> dict[str, Tensor]:
    """Return the box terms of image i, summed over its points."""
    positive = found.object_of >= 0
    weight = found.quality[positive]
    wanted = objects.boxes[found.object_of[positive]]
    overlap = generalized_box_iou_loss(boxes[positive], wanted, reduction="none")
    centres, strides = flat.centres[positive], flat.strides[positive].unsqueeze(1)
    distances = torch.cat([centres - wanted[:, :2], wanted[:, 2:] - centres], dim=1) / strides  # (P, 4)
    spread = distribution_loss(flat.boxes[i, positive].float().unflatten(1, (4, BINS)), distances)
    return {
        "boxes": BOX * (overlap * weight).sum(),
        "distributions": DISTRIBUTION * (spread.mean(dim=1) * weight).sum(),
    }


def distribution_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Return (P, 4): cross-entropy of distributions (P, 4, BINS) with the two bins that enclose each distance (P, 4)."""
    wanted = distances.clamp(0, BINS - 1 - 0.01)
    below = wanted.floor().long()
    share = wanted - below  # of the bin above
    log_p = logits.log_softmax(dim=2)
    low, high = (log_p.gather(2, bins.unsqueeze(2)).squeeze(2) for bins in (below, below + 1))
    return -((1 - share) * low + share * high)


def _mask_loss(flat: Flat, prototypes: Tensor, i: int, objects: Objects, found: Assignment) -> Tensor:
    """Return the mask term of image i, summed over at most MASKS_PER_IMAGE of its points and scaled to all.

    They are drawn: the best ones would all be of the objects that are easy.
    """
    assert flat.coefficients is not None
    assert objects.masks is not None
    positive = (found.object_of >= 0).nonzero().flatten()
    chosen = positive[torch.randperm(len(positive), device=positive.device)[:MASKS_PER_IMAGE]]
    quality = found.quality[chosen]
    if len(chosen) == 0:
        # 0, with which every parameter has a gradient, as DDP expects. Of nothing: a sum may overflow in float16.
        return (prototypes[i, :0].sum() + flat.coefficients[i, :0].sum()).float()
    logits = torch.einsum("pc,chw->phw", flat.coefficients[i, chosen].float(), prototypes[i].float())
    owners = found.object_of[chosen]
    target = objects.masks[owners].to(logits.dtype) / 4  # of four pixels
    logits = F.interpolate(logits.unsqueeze(0), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(0)
    boxes = objects.boxes[owners] * (target.shape[-2] / flat_height(flat))  # to the target's frame
    inside = box_masks(boxes, (target.shape[-2], target.shape[-1]))
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * inside
    each = entropy.sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp_min(1)
    return (each * quality).sum() * (found.quality.sum() / quality.sum().clamp_min(1e-9))


def flat_height(flat: Flat) -> Tensor:
    """Return the height of the network's input in pixels: the finest level's last row of cells ends there."""
    finest = flat.strides[0]
    return flat.centres[flat.strides == finest][:, 1].max() + finest / 2


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (P, h, w) bool: cells whose centre lies in the box (P, 4), both in the frame of `size`; never empty rows
    for a box thinner than a cell: its edges are moved outwards to whole cells."""
    y, x = (torch.arange(n, device=boxes.device) for n in size)
    x1, y1 = boxes[:, 0].floor(), boxes[:, 1].floor()
    x2, y2 = boxes[:, 2].ceil(), boxes[:, 3].ceil()
    columns = (x >= x1.unsqueeze(1)) & (x < x2.unsqueeze(1))  # (P, w)
    rows = (y >= y1.unsqueeze(1)) & (y < y2.unsqueeze(1))  # (P, h)
    return rows.unsqueeze(2) & columns.unsqueeze(1)

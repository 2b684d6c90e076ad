"""The task loss of detectors and instance segmenters, on boxes and masks.

    scores   binary cross-entropy against the assigned quality, focused where it is off: |q - s|^2 BCE(s, q)
             (quality focal loss, GFL, arXiv 2006.04388, section 3.2)
    boxes    1 - GIoU (arXiv 1902.09630), and the cross-entropy of a side's distribution with the two bins that enclose
             the true distance (distribution focal loss, GFL, section 3.2)
    masks    binary cross-entropy of the assembled mask inside the object's box (YOLACT, arXiv 1904.02689, section 3),
             interpolated as at inference to twice the prototypes' size, with the share of a cell that is the object's

Boxes and masks are weighted by the quality of their point, the target of its score. All terms are divided by the sum of the
qualities of the batch (with several devices: of the device's part). Their sum is the task loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from edgekd.data.augment import Objects
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS, decode, points
from edgekd.train.batch import Batch
from edgekd.train.losses.assign import Assignment, assign, inside_boxes

# Box: GFL's; distribution: twice GFL's; YOLACT's mask weight is on another scale.
BOX, DISTRIBUTION, MASK = 2.0, 0.5, 1.0
MASKS_PER_IMAGE = 32  # points whose mask is assembled for the loss: a limit of its memory


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
    assignments = [
        assign(probabilities[i].detach(), boxes[i].detach(), flat.centres, flat.strides, one.boxes, one.labels)
        for i, one in enumerate(objects)
    ]
    quality = torch.stack([one.quality for one in assignments])  # (B, N)
    positives = _positives(objects, torch.stack([one.object_of for one in assignments]), quality)
    total = quality.sum().clamp_min(1.0)
    parts = {**_box_losses(flat, boxes, positives), "scores": _score_loss(flat, objects, positives)}
    if "prototypes" in heads:
        masks = [
            _mask_loss(flat, heads["prototypes"], i, objects[i], points, assignments[i])
            for i, points in enumerate(positives.point.split(positives.counts))
        ]
        parts["masks"] = MASK * torch.stack(masks).sum()
    return {name: part / total for name, part in parts.items()}


@dataclass(frozen=True)
class Positives:
    """The points of a batch that are assigned to an object, image by image. They are searched once: a search waits for the GPU.

    image, point: (T,) index of the image, and of the point in it.
    boxes, labels, quality: (T, 4), (T,), (T,) of the object, and of the point.
    counts: number of points per image.
    """

    image: Tensor
    point: Tensor
    boxes: Tensor
    labels: Tensor
    quality: Tensor
    counts: list[int]


def _positives(objects: list[Objects], object_of: Tensor, quality: Tensor) -> Positives:
    """Gather the assigned points from `object_of` and `quality` (B, N)."""
    image, point = (object_of >= 0).nonzero(as_tuple=True)
    ends = torch.tensor([0, *(len(one.labels) for one in objects)], device=image.device).cumsum(0)
    owner = object_of[image, point] + ends[image]
    boxes, labels = (torch.cat([getattr(one, part) for one in objects]) for part in ("boxes", "labels"))
    counts = torch.bincount(image, minlength=len(objects)).tolist()
    return Positives(image, point, boxes[owner], labels[owner], quality[image, point], counts)


@dataclass(frozen=True)
class Flat:
    """All points of all levels: scores (B, N, K), boxes (B, N, 4 * BINS), coefficients (B, N, P) or None, centres
    (N, 2) and strides (N,) in pixels; height of the network's input in pixels."""

    scores: Tensor
    boxes: Tensor
    coefficients: Tensor | None
    centres: Tensor
    strides: Tensor
    height: int


def flattened(heads: dict[str, Tensor], strides: tuple[int, ...] = ()) -> Flat:
    """Concatenate the levels of the given strides, fine to coarse; by default all."""
    strides = strides or tuple(sorted(int(name.partition("_")[2]) for name in heads if name.startswith("scores_")))

    def joined(kind: str) -> Tensor:
        return torch.cat([heads[f"{kind}_{stride}"].flatten(2) for stride in strides], dim=2).transpose(1, 2)

    sizes = {stride: tuple(heads[f"scores_{stride}"].shape[-2:]) for stride in strides}
    device = heads[f"scores_{strides[0]}"].device
    centres = torch.cat([points((size[0], size[1]), stride, device) for stride, size in sizes.items()])
    lengths = [torch.full((size[0] * size[1],), float(stride), device=device) for stride, size in sizes.items()]
    coefficients = joined("coefficients") if f"coefficients_{strides[0]}" in heads else None
    height = sizes[strides[0]][0] * strides[0]
    return Flat(joined("scores"), joined("boxes"), coefficients, centres, torch.cat(lengths), height)


def _score_loss(flat: Flat, objects: list[Objects], positives: Positives) -> Tensor:
    scores = flat.scores.float()
    target, counted = torch.zeros_like(scores), torch.ones_like(scores[..., :1])
    target[positives.image, positives.point, positives.labels] = positives.quality
    for i, one in enumerate(objects):
        if one.ignored is not None and len(one.ignored):
            counted[i, :, 0] = (~inside_boxes(flat.centres, one.ignored).any(dim=0)).float()
    counted[positives.image, positives.point] = 1
    entropy = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return (entropy * (target - scores.sigmoid()).square() * counted).sum()


def _box_losses(flat: Flat, boxes: Tensor, positives: Positives) -> dict[str, Tensor]:
    """Return the box terms of a batch with decoded boxes (B, N, 4), summed over its points."""
    targets = positives.boxes
    overlap = generalized_box_iou_loss(boxes[positives.image, positives.point], targets, reduction="none")
    centres, strides = flat.centres[positives.point], flat.strides[positives.point].unsqueeze(1)
    distances = torch.cat([centres - targets[:, :2], targets[:, 2:] - centres], dim=1) / strides  # (T, 4)
    spread = distribution_loss(flat.boxes[positives.image, positives.point].float().unflatten(1, (4, BINS)), distances)
    return {
        "boxes": BOX * (overlap * positives.quality).sum(),
        "distributions": DISTRIBUTION * (spread.mean(dim=1) * positives.quality).sum(),
    }


def distribution_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Return (P, 4): cross-entropy of distributions (P, 4, BINS) with the two bins that enclose each distance (P, 4)."""
    targets = distances.clamp(0, BINS - 1 - 0.01)
    below = targets.floor().long()
    share = targets - below  # of the bin above
    log_p = logits.log_softmax(dim=2)
    low, high = (log_p.gather(2, bins.unsqueeze(2)).squeeze(2) for bins in (below, below + 1))
    return -((1 - share) * low + share * high)


def _mask_loss(
    flat: Flat, prototypes: Tensor, i: int, objects: Objects, positive: Tensor, assignment: Assignment
) -> Tensor:
    """Return the mask term of image i, summed over at most MASKS_PER_IMAGE of its positive points and scaled to all.

    The points are drawn at random: the best ones would all belong to easy objects.
    """
    assert flat.coefficients is not None
    assert objects.masks is not None
    chosen = positive[torch.randperm(len(positive), device=positive.device)[:MASKS_PER_IMAGE]]
    quality = assignment.quality[chosen]
    if len(chosen) == 0:
        # A zero that gives every parameter a gradient, as DDP expects. It sums nothing: a real sum may overflow in float16.
        return (prototypes[i, :0].sum() + flat.coefficients[i, :0].sum()).float()
    logits = torch.einsum("pc,chw->phw", flat.coefficients[i, chosen].float(), prototypes[i].float())
    owners = assignment.object_of[chosen]
    target = objects.masks[owners].to(logits.dtype) / 4  # of four pixels
    logits = F.interpolate(logits.unsqueeze(0), target.shape[-2:], mode="bilinear", align_corners=False).squeeze(0)
    boxes = objects.boxes[owners] * (target.shape[-2] / flat.height)  # to the target's frame
    inside = box_masks(boxes, (target.shape[-2], target.shape[-1]))
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * inside
    each = entropy.sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp_min(1)
    return (each * quality).sum() * (assignment.quality.sum() / quality.sum().clamp_min(1e-9))


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (P, h, w) bool: cells whose centre lies in the box (P, 4), both in the frame of `size`. The edges are moved
    outwards to whole cells: a box thinner than a cell has cells too."""
    y, x = (torch.arange(n, device=boxes.device) for n in size)
    x1, y1 = boxes[:, 0].floor(), boxes[:, 1].floor()
    x2, y2 = boxes[:, 2].ceil(), boxes[:, 3].ceil()
    columns = (x >= x1.unsqueeze(1)) & (x < x2.unsqueeze(1))  # (P, w)
    rows = (y >= y1.unsqueeze(1)) & (y < y2.unsqueeze(1))  # (P, h)
    return rows.unsqueeze(2) & columns.unsqueeze(1)

"""Task-aligned assignment of a detector's points to objects.

Source: TOOD, arXiv 2108.07755, section 3.2: alignment t = s^alpha * u^beta of the predicted score s of the object's
class and the predicted box's IoU u; each object gets the points of largest t inside its box. A point of two objects
belongs to the one whose box it overlaps more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

TOP = 13
ALPHA, BETA = 1.0, 6.0


@dataclass(frozen=True)
class Assignment:
    """The assignment of one image's N points: `object_of` (N,) int64, -1 for background; `quality` (N,) float, the score's target.

    The quality of an object's points is t scaled so that its largest equals the object's largest IoU.
    """

    object_of: Tensor
    quality: Tensor


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, true_boxes: Tensor, labels: Tensor
) -> Assignment:
    """Assign the points of one image to its objects.

    Args:
        scores: (N, K) predicted probabilities.
        boxes: (N, 4) predicted x1, y1, x2, y2 in pixels.
        centres: (N, 2) x, y of the points in pixels.
        strides: (N,) of the points' levels in pixels.
        true_boxes: (M, 4) of the objects.
        labels: (M,) int64 class of each object.
    """
    count = len(true_boxes)
    background = Assignment(labels.new_full((len(scores),), -1), scores.new_zeros(len(scores)))
    if count == 0:
        return background
    overlap = box_iou(true_boxes, boxes)  # (M, N)
    alignment = scores[:, labels].T.pow(ALPHA) * overlap.pow(BETA)
    inside = _candidates(centres, strides, true_boxes)
    alignment = torch.where(inside, alignment, -1.0)
    best = alignment.topk(min(TOP, alignment.shape[1]), dim=1)
    taken = torch.zeros_like(inside).scatter_(1, best.indices, best.values >= 0)
    # A point of several objects belongs to the one that it overlaps most.
    winner = torch.where(taken, overlap, -1.0).max(dim=0)
    object_of = torch.where(winner.values >= 0, winner.indices, -1)
    is_owner = taken & (torch.arange(count, device=labels.device).unsqueeze(1) == object_of)
    alignment, overlap = alignment * is_owner, overlap * is_owner
    scaled = alignment / alignment.amax(dim=1, keepdim=True).clamp_min(1e-30) * overlap.amax(dim=1, keepdim=True)
    return Assignment(object_of, scaled.amax(dim=0))


def inside_boxes(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return (M, N) bool: whether each point (N, 2) lies in each box (M, 4)."""
    x, y = centres.unbind(1)
    x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _candidates(centres: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Return (M, N) bool: the point lies in the box. A box without points gets the point of the finest level nearest to its
    centre: such an object is small."""
    inside = inside_boxes(centres, boxes)
    distance = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, centres)
    nearest = distance.where(strides == strides.min(), torch.inf).argmin(dim=1, keepdim=True)
    return torch.where(inside.any(dim=1, keepdim=True), inside, torch.zeros_like(inside).scatter_(1, nearest, True))

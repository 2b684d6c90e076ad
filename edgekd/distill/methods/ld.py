"""Logit distillation of detectors: scores, localisation, and the masks of instances.

Sources: localisation distillation, arXiv 2102.12252, section 3.1: a box side is a distribution, and its KL to the
teacher's is the loss; scores as the quality focal loss of GFL (arXiv 2006.04388, section 3.2) with the teacher's score as
the target. The levels that both networks have are compared, where point i of one is point i of the other.

    p = sigmoid(scores);  w_i = max_c p^T_ic                               the teacher's confidence at point i
    L_scores = sum_ic |p^T - p^S|^focus (BCE(p^T, p^S) - H(p^T)) / sum_i w_i
    L_boxes  = weight_boxes T^2 sum_i w_i mean_sides KL( softmax(d^T / T) || softmax(d^S / T) ) / sum_i w_i
    L_masks  = sum_i w_i mean_cells( BCE(m^T, m^S) - H(m^T) ) / sum_i w_i,
               where m = sigmoid(coefficients . prototypes): masks are compared, because prototypes have no order; the
               mean is over the cells in the teacher's box, because elsewhere no mask is ever trained or read. The sum
               over an image's points is estimated from `points` of them, drawn with probabilities proportional to w_i

Deviations: no region selection (the teacher's confidence is the weight); entropies are subtracted, so that each term is 0
where the student agrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.distill import relations, taps
from edgekd.distill.base import Count, Pyramid, Temperature, Weight
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS, decode
from edgekd.train.batch import Batch
from edgekd.train.losses.detection import Flat, box_masks, flattened

TASKS = ("detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weights, temperature and samples.

    `focus` 2 is GFL's exponent and was ahead on rendered scenes (one seed). With it, a student close to its teacher learns
    little, since the loss beside the weight is itself quadratic there. 1 is CrossKD's (arXiv 2306.11369).
    """

    temperature: Temperature = option(2.0, "Temperature T of the box distributions.")
    boxes: Weight = option(0.25, "Weight of the box term.")
    focus: Weight = option(
        2.0, "Exponent of the score weights. 2 is GFL's, 1 is CrossKD's, 0 weights all points alike."
    )
    points: Count = option(32, "Points per image whose masks are compared, drawn in every step.")


class Method(nn.Module):
    """Terms `scores`, `boxes` and, between instance segmenters, `masks`; no adapter.

    Raises:
        RecipeError: the teacher does not have edgekd's heads, or shares no level with the student.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        if not teacher.has_heads:
            raise RecipeError(
                "distill.methods.ld: expected a teacher with edgedet's heads, got one with its own; "
                "use bckd, fgd, pkd, mgd or fitnets, or a teacher of family edgedet"
            )
        self.options = options
        self.strides = taps.shared_levels(teacher, student, "ld")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the batch."""
        flat_t, flat_s = (flattened(side.heads, self.strides) for side in (teacher, student))
        p_t = flat_t.scores.detach().float().sigmoid()
        sure = p_t.amax(dim=2) * self._labelled(batch, teacher)  # (B, N)
        total = sure.sum().clamp_min(1e-6)
        terms = {
            "scores": _score_term(p_t, flat_s.scores.float(), sure > 0, self.options.focus) / total,
            "boxes": self.options.boxes * self._box_term(flat_t, flat_s, sure) / total,
        }
        if "prototypes" in teacher.heads and "prototypes" in student.heads:
            terms["masks"] = self._mask_term((flat_t, teacher), (flat_s, student), sure, batch.labelled)
        return terms

    def _labelled(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return (B, N) float: 1 for the points whose cell is mostly image, not padding, in the order of `flattened`."""
        sizes = [outputs.heads[f"scores_{stride}"].shape[-2:] for stride in self.strides]
        return torch.cat([relations.cells(batch.labelled, (h, w)).flatten(1) for h, w in sizes], dim=1).float()

    def _box_term(self, teacher: Flat, student: Flat, sure: Tensor) -> Tensor:
        temperature = self.options.temperature
        log_t, log_s = (
            (flat.float() / temperature).unflatten(2, (4, BINS)).log_softmax(dim=3)
            for flat in (teacher.boxes.detach(), student.boxes)
        )
        kl = (log_t.exp() * (log_t - log_s)).sum(dim=3).mean(dim=2)  # (B, N)
        return temperature**2 * (kl * sure).sum()

    def _mask_term(
        self, teacher: tuple[Flat, Outputs], student: tuple[Flat, Outputs], sure: Tensor, labelled: Tensor
    ) -> Tensor:
        # Drawn, because the most confident points would all be on easy objects. Draws of an image without points get weight 0.
        chosen = torch.multinomial(sure + 1e-12, self.options.points, replacement=True)  # (B, P)
        target = _masks(*teacher, chosen).detach().sigmoid()
        logits = _masks(*student, chosen)
        if logits.shape[-2:] != target.shape[-2:]:
            target = F.interpolate(target, size=logits.shape[-2:], mode="bilinear", align_corners=False)
        counted = _in_boxes(teacher[0], chosen, labelled, logits)
        excess = F.binary_cross_entropy_with_logits(logits, target, reduction="none") - _entropy(target)
        each = (excess * counted).sum(dim=(2, 3)) / counted.sum(dim=(2, 3)).clamp_min(1)
        weight = sure.sum(dim=1)  # (B,)
        return (each.mean(dim=1) * weight).sum() / weight.sum().clamp_min(1e-6)


def _in_boxes(flat: Flat, chosen: Tensor, labelled: Tensor, like: Tensor) -> Tensor:
    """Return (B, P, h, w) bool: the labelled cells of `like`'s grid inside the boxes of the chosen points (B, P)."""
    of_chosen = flat.boxes.detach().float().gather(1, chosen.unsqueeze(2).expand(-1, -1, flat.boxes.shape[2]))
    boxes = torch.stack(
        [decode(one, flat.centres[at], flat.strides[at]) for one, at in zip(of_chosen, chosen, strict=True)]
    )
    size = (like.shape[-2], like.shape[-1])
    inside = box_masks(boxes.flatten(0, 1) * (size[0] / labelled.shape[2]), size).view(like.shape)
    return inside & relations.cells(labelled, size)


def _score_term(target: Tensor, logits: Tensor, counted: Tensor, focus: float) -> Tensor:
    excess = F.binary_cross_entropy_with_logits(logits, target, reduction="none") - _entropy(target)
    apart = (target - logits.sigmoid()).abs()
    if focus != 1:
        apart = apart.clamp_min(1e-12).pow(focus)  # below 1 the slope at 0 is infinite
    return (apart * excess * counted.unsqueeze(2)).sum()


def _entropy(p: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def _masks(flat: Flat, outputs: Outputs, chosen: Tensor) -> Tensor:
    """Return mask logits (B, P, h, w) of the chosen points (B, P)."""
    assert flat.coefficients is not None
    mixes = flat.coefficients.float().gather(1, chosen.unsqueeze(2).expand(-1, -1, flat.coefficients.shape[2]))
    return torch.einsum("bpc,bchw->bphw", mixes, outputs.heads["prototypes"].float())

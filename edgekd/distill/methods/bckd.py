"""Boundary and context distillation.

Source: the two ideas of "Towards Customized Knowledge Distillation for Efficient Dense Image Predictions", arXiv
2401.13174. The paper's equations were not available to us: the definitions are ours, are given in full in
docs/explanation/distillation.md, and no number of the paper is reproduced or claimed.

Boundary, per tapped stride l, on features standardised per image and channel (f^):

    a_{i,d} = (1 + <f^_i, f^_{i+d}>) / 2             affinity of a cell and its neighbour, 4 directions x dilations
    KL_p    = Bernoulli KL( a^T || a^S )             per pair
    q_p     = a^T / mean(a^T) + (1 - a^T) / mean(1 - a^T)      balances few boundary pairs against many inner ones
    L_B(l)  = mean_p( q_p KL_p ),   L_B = sum_l w_l L_B(l) / sum_l w_l

Context, on one feature map pooled to at most `tokens` cells:

    P = softmax_row( f^ f^^T / tau ), diagonal left out;   L_C = mean_rows KL( P^T || P^S )

Teacher and student may differ in channels (no adapter is needed) and in stride (the finer map is average-pooled to
the other's grid). Cells of which most pixels carry no label take no part. Both terms are 0 for equal relations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgekd.distill import relations
from edgekd.distill.base import Batch, Pyramid
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs


@dataclass(frozen=True)
class Options:
    """The method's knobs.

    boundary, context: weight of each term; 0 switches it off and costs nothing.
    strides: backbone stride -> weight of its boundary term; late stages mark objects, early ones texture.
    dilations: distances of the neighbour pairs, in cells.
    context_at: the feature map of the context term, `decoder` or `backbone` (its coarsest stage).
    tokens: largest number of cells of the relation matrix; bounds its memory to tokens^2 floats per image.
    temperature: tau of the relation rows.
    """

    boundary: float = 1.0
    context: float = 1.0
    strides: dict[int, float] = field(default_factory=lambda: {4: 0.25, 8: 0.5, 16: 1.0, 32: 1.0})
    dilations: tuple[int, ...] = (1, 2)
    context_at: str = "decoder"
    tokens: int = 320
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.context_at not in ("decoder", "backbone"):
            raise RecipeError(f"bckd.context_at: expected decoder or backbone, got {self.context_at!r}")


class Method(nn.Module):
    """Terms `boundary` and `context`; no adapter.

    Raises:
        RecipeError: no stride of `strides` exists in both networks.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        self.strides = {s: w for s, w in options.strides.items() if s in student.channels and w > 0}
        self.teacher_stride = {s: relations.teacher_stride(teacher.channels, s) for s in self.strides}
        if options.boundary > 0 and not self.strides:
            raise RecipeError(
                f"bckd.strides: the student has features at strides {sorted(student.channels)}, "
                f"got {sorted(options.strides)}; name at least one of them or set boundary to 0"
            )
        if not teacher.channels and (options.boundary > 0 or options.context_at == "backbone"):
            raise RecipeError("bckd: this teacher shows no feature maps; give it `taps` or use kd or cwd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted-by-option terms that are switched on."""
        valid = batch.valid.float().unsqueeze(1)  # (B, 1, H, W)
        terms: dict[str, Tensor] = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            if self.options.boundary > 0:
                terms["boundary"] = self.options.boundary * self._boundary(teacher, student, valid)
            if self.options.context > 0:
                terms["context"] = self.options.context * self._context(teacher, student, valid)
        return terms

    def _boundary(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for stride, weight in self.strides.items():
            of_teacher = teacher.features[self.teacher_stride[stride]].detach()
            map_t, map_s = relations.on_common_grid(of_teacher, student.features[stride])
            total = total + weight * boundary_loss(map_t, map_s, relations.cells(valid, map_s), self.options.dilations)
        return total / sum(self.strides.values())

    def _context(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        if self.options.context_at == "decoder":
            raw_t, raw_s = teacher.decoder, student.decoder
        else:
            raw_t, raw_s = teacher.features[max(teacher.features)], student.features[max(student.features)]
        height = min(raw_t.shape[-2], raw_s.shape[-2])
        width = min(raw_t.shape[-1], raw_s.shape[-1])
        grid = relations.token_grid(height, width, self.options.tokens)
        map_t = relations.pooled_to(raw_t.detach().float(), grid)
        map_s = relations.pooled_to(raw_s.float(), grid)
        return context_loss(map_t, map_s, relations.cells(valid, map_s), self.options.temperature)


def boundary_loss(teacher: Tensor, student: Tensor, valid: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Return L_B of one stage for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool."""
    offsets = relations.pair_offsets(dilations, *teacher.shape[-2:])
    if not offsets:
        return student.sum() * 0.0  # a map of one row or column has no pairs
    weight = torch.cat([relations.pair_valid(valid, offset).flatten() for offset in offsets]).float()
    a_t, a_s = (
        torch.cat([a.flatten() for a in relations.pair_affinities(relations.standardised(x, valid), offsets)])
        for x in (teacher, student)
    )
    kl = a_t * (a_t.log() - a_s.log()) + (1 - a_t) * (torch.log1p(-a_t) - torch.log1p(-a_s))
    # Weights of 0 instead of a selection: the number of valid pairs never leaves the device. No pair at all gives 0.
    pairs = weight.sum().clamp_min(1)
    alike, unlike = (((a * weight).sum() / pairs).clamp_min(1e-4) for a in (a_t, 1 - a_t))
    balance = a_t / alike + (1 - a_t) / unlike
    return (balance * kl * weight).sum() / pairs


def context_loss(teacher: Tensor, student: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return L_C for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool."""
    log_t = relations.relation_log_rows(relations.standardised(teacher, valid), valid, temperature)
    log_s = relations.relation_log_rows(relations.standardised(student, valid), valid, temperature)
    kl = (log_t.exp() * (log_t - log_s)).sum(dim=2)  # (B, N)
    rows = valid.flatten(1).to(kl.dtype)
    return (kl * rows).sum() / rows.sum().clamp_min(1)

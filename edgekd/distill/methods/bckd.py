"""Boundary and context distillation.

Source: the two ideas of "Towards Customized Knowledge Distillation for Efficient Dense Image Predictions", arXiv
2401.13174. The paper's equations were not available to us: the definitions are ours, are given in full in
docs/explanation/bckd.md, and no number of the paper is reproduced or claimed.

Boundary, per tapped stride l, on features standardised per image and channel (f^):

    a_{i,d} = (1 + <f^_i, f^_{i+d}>) / 2             affinity of a cell and its neighbour, 4 directions x dilations
    KL_p    = Bernoulli KL( a^T || a^S )             per pair
    q_p     = a^T / mean(a^T) + (1 - a^T) / mean(1 - a^T)      balances few boundary pairs against many inner ones
    L_B(l)  = mean_p( q_p KL_p ),   L_B = sum_l w_l L_B(l) / sum_l w_l

Context, on one feature map pooled to at most `tokens` cells:

    P = softmax_row( f^ f^^T / tau ), diagonal left out;   L_C = mean_rows KL( P^T || P^S )

Variants and one further term, off by default, are there to be compared (`edgekd study`):

    form: map          b = 1 - mean of a cell's two smallest affinities (the boundary itself); L_B(l) = mean |b^T - b^S|
    form: path         a_{i,d} = 1 - max of b over the cells from i to i+d, then L_B(l) as above (IRNet's affinity, CVPR
                       2019, equation 3, with this boundary map instead of a trained one)
    context_at: classes    f = softmax of the logits, so that the relation is of what the cells are taken for
    focus              B = sum_l w_l up(b_l^T), the teacher's fused boundary;  L_F = mean_p( B_p / mean(B) KL_p ), where
                       KL_p is that of `kd` at temperature 1 on the logits pooled to the finest stride

Teacher and student may differ in channels (no adapter is needed) and in stride (the finer map is average-pooled to
the other's grid). Cells of which most pixels carry no label take no part. Both terms are 0 for equal relations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill import logits, relations
from edgekd.distill.base import Batch, Pyramid
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """The method's knobs.

    boundary, context, focus: weight of each term; 0 switches it off and costs nothing.
    form: what the boundary term compares: `pairs` of neighbours, the boundary `map`, or that along the `path` of a pair.
    strides: backbone stride -> weight of its boundary term; late stages mark objects, early ones texture.
    dilations: distances of the neighbour pairs, in cells.
    context_at: the map of the context term: `decoder`, `backbone` (its coarsest stage) or `classes` (probabilities).
    tokens: largest number of cells of the relation matrix; bounds its memory to tokens^2 floats per image.
    anchors: rows of that matrix, drawn anew in every step; None takes all. Memory is then anchors * tokens.
    temperature: tau of the relation rows.
    """

    boundary: float = 1.0
    context: float = 1.0
    focus: float = 0.0
    form: Literal["pairs", "map", "path"] = "pairs"
    strides: dict[int, float] = field(default_factory=lambda: {4: 0.25, 8: 0.5, 16: 1.0, 32: 1.0})
    dilations: tuple[int, ...] = (1, 2)
    context_at: Literal["decoder", "backbone", "classes"] = "decoder"
    tokens: int = 320
    anchors: int | None = None
    temperature: float = 0.1


class Method(nn.Module):
    """Terms `boundary`, `context` and `focus`; no adapter.

    Raises:
        RecipeError: no stride of `strides` exists in both networks.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        self.strides = {s: w for s, w in options.strides.items() if s in student.channels and w > 0}
        self.teacher_stride = {s: relations.teacher_stride(teacher.channels, s) for s in self.strides}
        needs_strides = options.boundary > 0 or options.focus > 0
        if needs_strides and not self.strides:
            raise RecipeError(
                f"bckd.strides: the student has features at strides {sorted(student.channels)}, "
                f"got {sorted(options.strides)}; name at least one of them or set boundary and focus to 0"
            )
        if not teacher.channels and (needs_strides or options.context_at == "backbone"):
            raise RecipeError("bckd: this teacher shows no feature maps; give it `taps` or use kd or cwd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted-by-option terms that are switched on."""
        options, valid = self.options, batch.valid.float().unsqueeze(1)  # (B, 1, H, W)
        terms: dict[str, Tensor] = {}
        with torch.autocast(student.decoder.device.type, enabled=False):
            if options.boundary > 0:
                terms["boundary"] = options.boundary * self._boundary(teacher, student, valid)
            if options.context > 0:
                terms["context"] = options.context * self._context(teacher, student, valid)
            if options.focus > 0:
                terms["focus"] = options.focus * self._focus(teacher, student, batch.valid)
        return terms

    def _boundary(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        total = student.decoder.new_zeros((), dtype=torch.float32)
        for stride, weight in self.strides.items():
            of_teacher = teacher.features[self.teacher_stride[stride]].detach()
            map_t, map_s = relations.on_common_grid(of_teacher, student.features[stride])
            cells = relations.cells(valid, map_s)
            if self.options.form == "map":
                loss = map_loss(map_t, map_s, cells)
            else:
                loss = boundary_loss(map_t, map_s, cells, self.options.dilations, self.options.form)
            total = total + weight * loss
        return total / sum(self.strides.values())

    def _context(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        raw_t, raw_s = (_context_map(outputs, self.options.context_at) for outputs in (teacher, student))
        height = min(raw_t.shape[-2], raw_s.shape[-2])
        width = min(raw_t.shape[-1], raw_s.shape[-1])
        grid = relations.token_grid(height, width, self.options.tokens)
        map_t = relations.pooled_to(raw_t.detach().float(), grid)
        map_s = relations.pooled_to(raw_s.float(), grid)
        anchors, count = self.options.anchors, grid[0] * grid[1]
        rows = None if anchors is None else torch.randperm(count, device=map_s.device)[:anchors]
        return context_loss(map_t, map_s, relations.cells(valid, map_s), self.options.temperature, rows)

    def _focus(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        finest = min(self.strides)
        z_t, cells = logits.pooled(teacher.logits.detach(), valid, finest)
        z_s, _ = logits.pooled(student.logits, valid, finest)
        features = {s: teacher.features[self.teacher_stride[s]].detach() for s in self.strides}
        boundary = fused_boundary(features, self.strides, (z_t.shape[-2], z_t.shape[-1]))
        return focus_loss(z_t, z_s, boundary, cells.squeeze(1))


def _context_map(outputs: Outputs, at: str) -> Tensor:
    if at == "classes":
        return outputs.logits.float().softmax(dim=1)
    return outputs.decoder if at == "decoder" else outputs.features[max(outputs.features)]


def boundary_loss(
    teacher: Tensor, student: Tensor, valid: Tensor, dilations: tuple[int, ...], form: str = "pairs"
) -> Tensor:
    """Return L_B of one stage for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool."""
    offsets = relations.pair_offsets(dilations, *teacher.shape[-2:])
    if not offsets:
        return student.sum() * 0.0  # a map of one row or column has no pairs
    weight = torch.cat([relations.pair_valid(valid, offset).flatten() for offset in offsets]).float()
    a_t, a_s = (torch.cat([a.flatten() for a in _affinities(x, valid, offsets, form)]) for x in (teacher, student))
    kl = a_t * (a_t.log() - a_s.log()) + (1 - a_t) * (torch.log1p(-a_t) - torch.log1p(-a_s))
    # Weights of 0 instead of a selection: the number of valid pairs never leaves the device. No pair at all gives 0.
    pairs = weight.sum().clamp_min(1)
    alike, unlike = (((a * weight).sum() / pairs).clamp_min(1e-4) for a in (a_t, 1 - a_t))
    balance = a_t / alike + (1 - a_t) / unlike
    return (balance * kl * weight).sum() / pairs


def _affinities(features: Tensor, valid: Tensor, offsets: list[tuple[int, int]], form: str) -> list[Tensor]:
    if form == "path":
        return relations.path_affinities(relations.boundary_map(features), offsets)
    return relations.pair_affinities(relations.standardised(features, valid), offsets)


def map_loss(teacher: Tensor, student: Tensor, valid: Tensor) -> Tensor:
    """Return the mean absolute difference of the boundary maps of one stage, arguments as in `boundary_loss`."""
    weight = valid.squeeze(1).float()
    difference = (relations.boundary_map(teacher) - relations.boundary_map(student)).abs()
    return (difference * weight).sum() / weight.sum().clamp_min(1)


def fused_boundary(features: dict[int, Tensor], weights: dict[int, float], size: tuple[int, int]) -> Tensor:
    """Return B = sum_l w_l up(b_l) / sum_l w_l, (B, h, w) at `size`, of one network's maps by stride."""
    stages = (relations.boundary_map(features[stride]).unsqueeze(1) for stride in weights)
    scaled = [F.interpolate(stage, size=size, mode="bilinear", align_corners=False) for stage in stages]
    shares = torch.tensor(list(weights.values()), device=scaled[0].device)
    return (torch.cat(scaled, dim=1) * (shares / shares.sum()).view(1, -1, 1, 1)).sum(dim=1)


def focus_loss(teacher: Tensor, student: Tensor, boundary: Tensor, valid: Tensor) -> Tensor:
    """Return L_F for logits (B, K, h, w), a boundary map (B, h, w) and valid (B, h, w) bool."""
    weight = boundary * valid
    kl = logits.kl_per_pixel(teacher, student, temperature=1.0)
    return (weight * kl).sum() / weight.sum().clamp_min(1e-6)


def context_loss(
    teacher: Tensor, student: Tensor, valid: Tensor, temperature: float, rows: Tensor | None = None
) -> Tensor:
    """Return L_C for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool, of the cells `rows`."""
    log_t = relations.relation_log_rows(relations.standardised(teacher, valid), valid, temperature, rows)
    log_s = relations.relation_log_rows(relations.standardised(student, valid), valid, temperature, rows)
    kl = (log_t.exp() * (log_t - log_s)).sum(dim=2)  # (B, R)
    counted = valid.flatten(1) if rows is None else valid.flatten(1)[:, rows]
    weight = counted.to(kl.dtype)
    return (kl * weight).sum() / weight.sum().clamp_min(1)

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

For detectors and instance segmenters (off by default):

    boundary_at: levels, both     L_B of the levels of the pyramid that both networks have, instead of the backbone's
                  stages or together with them; each level has the weight of its stride
    background    w_p = 1 for pairs of which a cell is in an object or at most `ring` cells from one, else `background`; in
                  L_B every mean over pairs becomes the mean with weights w_p
    context_at: levels        L_C is the mean of L_C over the levels of the pyramid that both networks have
    context_at: prototypes    the relation of mask prototypes; teacher and student may have
                  different numbers of them, in any order

Teacher and student may differ in channels (no adapter is needed) and in stride (the finer map is average-pooled to
the other's grid). Cells with mostly unlabelled pixels are left out. Both terms are 0 for equal relations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.distill import logits, relations, taps, token_relations
from edgekd.distill.base import Count, Pyramid, Temperature, Weight, check_at_least
from edgekd.distill.boundary_terms import boundary_loss, fused_boundary, map_loss
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weights, maps and limits of the three terms."""

    boundary: Weight = option(4.0, "Weight of the boundary term. 0 switches it off at no cost.")
    context: Weight = option(0.5, "Weight of the context term. 0 switches it off at no cost.")
    focus: Weight = option(0.0, "Weight of the focus term, which compares logits at boundaries. 0 switches it off.")
    form: Literal["pairs", "map", "path"] = option(
        "pairs",
        "What the boundary term compares: affinities of neighbour `pairs`, the boundary `map`, or the map along the `path` "
        "of a pair.",
    )
    boundary_at: Literal["backbone", "levels", "both"] = option(
        "backbone", "Maps of the boundary term: stages of the `backbone`, a detector's pyramid `levels`, or `both`."
    )
    strides: dict[int, Weight] = option(
        {4: 0.25, 8: 0.5, 16: 1.0, 32: 1.0},
        "Weight of the boundary term at each stride. Late stages mark objects, early ones texture.",
    )
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = option(
        (1, 2), "Distances of neighbour pairs, in cells."
    )
    background: float = option(
        1.0,
        "Detection and instances: weight of neighbour pairs away from all objects, 0 to 1. 1 weights all pairs alike.",
    )
    ring: int = option(1, "Cells around an object that belong to it, at each stride; they contain its boundary.")
    context_at: Literal["decoder", "backbone", "classes", "levels", "prototypes"] = option(
        "decoder",
        "Map of the context term: `decoder`, `backbone` (its coarsest stage) or `classes` (class probabilities); of "
        "detectors also the pyramid's `levels`, of instance segmenters also `prototypes`.",
    )
    tokens: Annotated[int, Field(ge=2)] = option(
        320, "Max cells of the relation matrix, which takes tokens^2 floats per image."
    )
    anchors: Count | None = option(
        None,
        "Rows of the relation matrix, drawn in every step; it then takes anchors * tokens floats. `null`: all rows.",
    )
    temperature: Temperature = option(0.1, "Temperature tau of the relation rows.")

    def __post_init__(self) -> None:
        if not 0 <= self.background <= 1:
            raise RecipeError(f"bckd.background: expected a weight from 0 to 1, got {self.background:g}")
        check_at_least(0, self.ring, "bckd.ring")
        rows = min(self.tokens, self.anchors or self.tokens)
        if rows * self.tokens > taps.MAX_TOKENS**2:
            most = taps.MAX_TOKENS if self.anchors is None else taps.MAX_TOKENS**2 // rows
            raise RecipeError(
                f"bckd.tokens: expected at most {most} (64 MiB per image), got {self.tokens}; set fewer `anchors` for more"
            )


class Method(nn.Module):
    """Terms `boundary`, `context` and `focus`; no adapter.

    Raises:
        RecipeError: no stride of `strides` exists in both networks, or an option is for other tasks or networks.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        self.strides = {s: w for s, w in options.strides.items() if s in student.channels and w > 0}
        self.teacher_stride = {s: relations.teacher_stride(teacher.channels, s) for s in self.strides}
        at_backbone = options.boundary > 0 and options.boundary_at != "levels"
        needs_strides = at_backbone or options.focus > 0
        if needs_strides and not student.channels:
            raise RecipeError("bckd: this student shows no feature maps; give it `taps` or use dist, kd or cwd")
        if needs_strides and not self.strides:
            raise RecipeError(
                f"bckd.strides: the student has features at strides {sorted(student.channels)}, "
                f"got {sorted(options.strides)}; name at least one of them or set boundary and focus to 0"
            )
        if not teacher.channels and (needs_strides or options.context_at == "backbone"):
            raise RecipeError("bckd: this teacher shows no feature maps; give it `taps` or use kd or cwd")
        _check_task(options, teacher, student)
        at_levels = options.boundary > 0 and options.boundary_at != "backbone"
        needs_levels = at_levels or (options.context > 0 and options.context_at == "levels")
        self.levels = taps.shared_levels(teacher, student, "bckd") if needs_levels else ()
        self.level_weights = {s: options.strides[s] for s in self.levels if options.strides.get(s, 0) > 0}
        if at_levels and not self.level_weights:
            raise RecipeError(
                f"bckd.strides: the networks share levels at strides {list(self.levels)}, got {sorted(options.strides)}; "
                "name at least one of them or set boundary_at: backbone"
            )

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted-by-option terms that are switched on."""
        options = self.options
        terms: dict[str, Tensor] = {}
        if options.boundary > 0:
            terms["boundary"] = options.boundary * self._boundary(teacher, student, batch)
        if options.context > 0:
            terms["context"] = options.context * self._context(teacher, student, batch)
        if options.focus > 0:
            terms["focus"] = options.focus * self._focus(teacher, student, batch.valid)
        return terms

    def _boundary(self, teacher: Outputs, student: Outputs, batch: Batch) -> Tensor:
        maps = self._boundary_maps(teacher, student)
        total, weights = student.decoder[..., :0].float().sum(), 0.0  # a 0 in the autograd graph
        for of_teacher, of_student, weight in maps:
            map_t, map_s, cells = relations.on_common_grid(of_teacher.detach(), of_student, batch.labelled)
            dilations = (1,) if self.options.form == "map" else self.options.dilations
            if not relations.pair_offsets(dilations, *map_t.shape[-2:]):
                continue  # a map of one row or column has no pairs: it takes no part in the mean
            near = None if self.options.background == 1 else object_weight(batch.masks, cells, self.options)
            if self.options.form == "map":
                loss = map_loss(map_t, map_s, cells, near)
            else:
                loss = boundary_loss(map_t, map_s, cells, self.options.dilations, self.options.form, near)
            total, weights = total + weight * loss, weights + weight
        return total / weights if weights else total

    def _boundary_maps(self, teacher: Outputs, student: Outputs) -> list[tuple[Tensor, Tensor, float]]:
        """Return the maps of both networks, and the weight, of every stage and level that the boundary term compares."""
        at, maps = self.options.boundary_at, []
        if at != "levels":
            maps += [
                (teacher.features[self.teacher_stride[s]], student.features[s], w) for s, w in self.strides.items()
            ]
        if at != "backbone":
            maps += [(teacher.levels[s], student.levels[s], w) for s, w in self.level_weights.items()]
        return maps

    def _context(self, teacher: Outputs, student: Outputs, batch: Batch) -> Tensor:
        maps_t, maps_s = (_context_maps(out, self.options.context_at, self.levels) for out in (teacher, student))
        losses = [self._context_of(t, s, batch) for t, s in zip(maps_t, maps_s, strict=True)]
        return torch.stack(losses).mean()

    def _context_of(self, of_teacher: Tensor, of_student: Tensor, batch: Batch) -> Tensor:
        map_t, map_s, valid = taps.pooled_pair(of_teacher, of_student, batch, self.options.tokens)
        anchors, count = self.options.anchors, valid[0].numel()
        rows = None if anchors is None else torch.randperm(count, device=map_s.device)[:anchors]
        return context_loss(map_t, map_s, valid, self.options.temperature, rows)

    def _focus(self, teacher: Outputs, student: Outputs, valid: Tensor) -> Tensor:
        finest = min(self.strides)
        z_t, cells = logits.pooled(teacher.logits.detach(), valid, finest)
        z_s, _ = logits.pooled(student.logits, valid, finest)
        features = {s: teacher.features[self.teacher_stride[s]].detach() for s in self.strides}
        boundary = fused_boundary(features, self.strides, (z_t.shape[-2], z_t.shape[-1]), valid.float().unsqueeze(1))
        return focus_loss(z_t, z_s, boundary, cells.squeeze(1))


def _check_task(options: Options, teacher: Pyramid, student: Pyramid) -> None:
    """Check that what the options compare exists in networks for the task."""
    at, task = options.context_at, student.task
    if options.background != 1 and task == "semantic":
        raise RecipeError(
            f"bckd.background: expected 1 for task 'semantic', which has no objects, got {options.background:g}"
        )
    if options.focus > 0 and task != "semantic":
        raise RecipeError(
            f"bckd.focus: expected 0 for task {task!r}, whose networks have no logits, got {options.focus:g}"
        )
    if options.boundary > 0 and options.boundary_at != "backbone" and task == "semantic":
        raise RecipeError(
            f"bckd.boundary_at: {options.boundary_at!r} is of detectors, expected backbone for task {task!r}"
        )
    able = {"classes": ("semantic",), "levels": ("detection", "instance"), "prototypes": ("instance",)}
    if options.context > 0 and task not in able.get(at, (task,)):
        raise RecipeError(
            f"bckd.context_at: {at!r} is not for task {task!r}, expected decoder or backbone; use one of them"
        )
    if options.context > 0 and at == "classes" and student.num_classes < 3:
        raise RecipeError(
            f"bckd.context_at: 'classes' expected three classes or more, got {student.num_classes}, whose relations are all 1 or -1; "
            "use decoder"
        )
    if options.context > 0 and at == "prototypes" and not teacher.has_heads:
        raise RecipeError("bckd.context_at: this teacher has no prototypes, expected one of family edgedet; use levels")


def _context_maps(outputs: Outputs, at: str, levels: tuple[int, ...]) -> list[Tensor]:
    if at == "classes":
        return [outputs.logits.float().softmax(dim=1)]
    if at == "levels":
        return [outputs.levels[stride] for stride in levels]
    if at == "prototypes":
        return [outputs.heads["prototypes"]]
    return [outputs.decoder if at == "decoder" else outputs.features[max(outputs.features)]]


def object_weight(masks: Tensor, cells: Tensor, options: Options) -> Tensor:
    """Return (B, 1, h, w) float: 1 for cells of `cells`' grid that touch an object or lie in its ring, else `background`.

    masks (B, H, W) are 1 inside objects, 0 elsewhere, 255 where there is no image.
    """
    inside = F.adaptive_max_pool2d((masks == 1).float().unsqueeze(1), (cells.shape[-2], cells.shape[-1]))
    near = F.max_pool2d(inside, kernel_size=2 * options.ring + 1, stride=1, padding=options.ring)
    return options.background + (1 - options.background) * near


def focus_loss(teacher: Tensor, student: Tensor, boundary: Tensor, valid: Tensor) -> Tensor:
    """Return L_F for logits (B, K, h, w), a boundary map (B, h, w) and valid (B, h, w) bool."""
    weight = boundary * valid
    kl = logits.kl_per_pixel(teacher, student, temperature=1.0)
    return (weight * kl).sum() / weight.sum().clamp_min(1e-6)


def context_loss(
    teacher: Tensor, student: Tensor, valid: Tensor, temperature: float, rows: Tensor | None = None
) -> Tensor:
    """Return L_C for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool, of the cells `rows`."""
    unit_t, unit_s = (relations.standardised(x, valid) for x in (teacher, student))
    return token_relations.relation_loss(unit_t, unit_s, valid, temperature, rows)

"""The boundary terms of `bckd`: losses of neighbours' affinities and of boundary maps. Defined in docs/explanation/bckd.md."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill import relations


def boundary_loss(
    teacher: Tensor,
    student: Tensor,
    valid: Tensor,
    dilations: tuple[int, ...],
    form: str = "pairs",
    near: Tensor | None = None,
) -> Tensor:
    """Return L_B of one stage for maps (B, Ct, h, w), (B, Cs, h, w) on one grid and valid (B, 1, h, w) bool.

    near (B, 1, h, w) are the cells' weights; a pair has the larger of its two cells'. By default all are 1.
    """
    offsets = relations.pair_offsets(dilations, *teacher.shape[-2:])
    if not offsets:
        return student[..., :0].sum()  # a map of one row or column has no pairs
    weight = torch.cat([relations.pair_valid(valid, offset).flatten() for offset in offsets]).float()
    if near is not None:
        weight = weight * torch.cat([relations.pair_max(near, offset).flatten() for offset in offsets])
    a_t, a_s = (_affinities(x, valid, offsets, form) for x in (teacher, student))
    return relations.balanced_kl(a_t, a_s, weight)


def _affinities(features: Tensor, valid: Tensor, offsets: list[tuple[int, int]], form: str) -> Tensor:
    """Return the affinities of all pairs as one vector, offset after offset."""
    if form == "path":
        along = relations.path_affinities(relations.boundary_map(features, valid), offsets)
        return torch.cat([a.flatten() for a in along])
    return relations.all_pair_affinities(relations.standardised(features, valid), offsets)


def map_loss(teacher: Tensor, student: Tensor, valid: Tensor, near: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference of the boundary maps of one stage, arguments as in `boundary_loss`."""
    weight = (valid.float() if near is None else valid * near).squeeze(1)
    difference = (relations.boundary_map(teacher, valid) - relations.boundary_map(student, valid)).abs()
    return (difference * weight).sum() / weight.sum().clamp_min(1 if near is None else 1e-6)


def fused_boundary(
    features: dict[int, Tensor], weights: dict[int, float], size: tuple[int, int], labelled: Tensor
) -> Tensor:
    """Return B = sum_l w_l up(b_l) / sum_l w_l, (B, h, w) at `size`, of one network's maps by stride; labelled is
    (B, 1, H, W) float."""
    maps = (features[stride] for stride in weights)
    cells = ((x, relations.cells(labelled, (x.shape[-2], x.shape[-1]))) for x in maps)
    stages = (relations.boundary_map(x, valid).unsqueeze(1) for x, valid in cells)
    scaled = [F.interpolate(stage, size=size, mode="bilinear", align_corners=False) for stage in stages]
    shares = torch.tensor(list(weights.values()), device=scaled[0].device)
    return (torch.cat(scaled, dim=1) * (shares / shares.sum()).view(1, -1, 1, 1)).sum(dim=1)

"""Functions of feature maps: common grids, standardised features, affinities of neighbours, attention.

All functions compute in float32, also under autocast; features are (B, C, h, w), validity is (B, 1, h, w) bool.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Right, down, and the two diagonals; their opposites are the same pairs.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_DEAD_STD = 1e-4  # a channel with less spread over the image carries no relation (dead ReLU)
_SMALLEST_SQUARE = 1e-12  # of a cell's vector before it gets unit length
_SMALL_NORM = 1e-4  # cosines of shorter vectors shrink towards 0, so that their gradients stay bounded


def standardised(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return unit-length feature vectors after a per-image, per-channel z-score over the valid cells.

    f^ = l2norm_c( (F - mean_hw F) / (std_hw F + 1e-5) ); channels that are constant over the image are dropped.
    """
    if valid is None:
        valid = torch.ones_like(features[:, :1], dtype=torch.bool)
    return _Standardised.apply(features.float(), valid)


class _Standardised(torch.autograd.Function):
    """Standardised features, with the gradient written out: half of autograd's passes over the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor) -> Tensor:
        total = valid.sum(dim=(2, 3), keepdim=True).clamp_min(1)  # (B, 1, 1, 1)
        z = x - (x * valid).sum(dim=(2, 3), keepdim=True) / total
        std = torch.linalg.vector_norm(z * valid, dim=(2, 3), keepdim=True) / total.sqrt()  # (B, C, 1, 1)
        scale = torch.where(std > _DEAD_STD, 1 / (std + 1e-5), 0.0)
        z *= scale
        # Not F.normalize: a norm over dimension 1 is ten times slower on CPUs (torch 2.15) than squares and a sum.
        length = z.square().sum(dim=1, keepdim=True).clamp_min(_SMALLEST_SQUARE).rsqrt()
        ctx.save_for_backward(z, length, scale, std, valid, total)
        return z * length

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        z, length, scale, std, valid, total = ctx.saved_tensors
        # Gradient of z: without the part along z, except where the length is clamped at its minimum.
        along = (grad * z).sum(dim=1, keepdim=True) * length**3 * (length < _SMALLEST_SQUARE**-0.5)
        of_z = torch.addcmul(grad * length, along, z, value=-1)
        # Gradient of the centred features: through the product with the scale, and through the deviation.
        of_std = (of_z * z).sum(dim=(2, 3), keepdim=True) / (std * total).clamp_min(_DEAD_STD)
        of_centred = torch.addcmul(of_z.mul_(scale), of_std * valid, z, value=-1)
        return of_centred - valid * (of_centred.sum(dim=(2, 3), keepdim=True) / total), None


def pooled_to(features: Tensor, size: tuple[int, int], labelled: Tensor) -> Tensor:
    """Return the mean over the labelled part of each cell of a grid `size` (h, w), which is at most the features' own.

    labelled is (B, 1, H, W) float, 1 where a pixel carries a label. Identity when the sizes are equal.
    """
    if tuple(features.shape[-2:]) == size:
        return features
    share = F.adaptive_avg_pool2d(labelled, (features.shape[-2], features.shape[-1]))
    mean = F.adaptive_avg_pool2d(features * share, size)
    return mean * F.adaptive_avg_pool2d(share, size).clamp_min(1e-6).reciprocal()


def on_common_grid(teacher: Tensor, student: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both maps on the coarser of the two grids, so that one step is the same image distance in both.

    The finer one is average-pooled; nothing is ever upsampled (interpolation itself makes neighbours alike).

    Returns:
        The maps (B, C, h, w) float32, and which of their cells carry a label (`cells`).
    """
    grid = (min(teacher.shape[-2], student.shape[-2]), min(teacher.shape[-1], student.shape[-1]))
    map_t, map_s = (pooled_to(x.float(), grid, labelled) for x in (teacher, student))
    return map_t, map_s, cells(labelled, grid)


def cells(labelled: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (B, 1, h, w) bool: cells of a grid (h, w) of which more than half of the pixels carry a label.

    labelled is (B, 1, H, W) float, 1 where a pixel carries a label.
    """
    return F.adaptive_avg_pool2d(labelled, grid) > 0.5


def teacher_stride(channels: dict[int, int], stride: int) -> int:
    """Return the teacher's coarsest stride that is not above `stride`, else its finest; 0 when it has none."""
    finer = [s for s in channels if s <= stride]
    return max(finer) if finer else min(channels, default=0)


def unit_vectors(tokens: Tensor) -> Tensor:
    """Return vectors (..., C) at length 1."""
    return tokens * tokens.square().sum(dim=-1, keepdim=True).clamp_min(_SMALL_NORM**2).rsqrt()


def unit_cells(features: Tensor) -> Tensor:
    """Return (B, N, C): the cells of a float32 map (B, C, h, w) as vectors of length 1."""
    return unit_vectors(features.flatten(2).transpose(1, 2))


def attention(features: Tensor, valid: Tensor) -> Tensor:
    """Return (B, N): the mean square over channels per valid cell, as one vector of length 1 per image.

    An image without a valid cell gives zeros. Source: arXiv 1612.03928, section 3.1.
    """
    energy = (features.float().square().mean(dim=1, keepdim=True) * valid).flatten(1)
    return F.normalize(energy, dim=1, eps=1e-6)


def correlation(teacher: Tensor, student: Tensor, weight: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return Pearson's r over `dims` (kept as 1) and where it is defined, for float32 maps of one shape.

    weight is 0 or 1 and broadcasts; only entries of weight 1 count. r is not defined (and 0) where the teacher is
    constant. Where the student is constant it is 0 with a bounded gradient.
    """
    total = weight.expand_as(teacher).sum(dim=dims, keepdim=True).clamp_min(1)
    unit, norms = [], []
    for x in (teacher, student):
        centred = (x - (x * weight).sum(dim=dims, keepdim=True) / total) * weight
        norm = torch.linalg.vector_norm(centred, dim=dims, keepdim=True)
        unit.append(centred / torch.maximum(norm, _DEAD_STD * total.sqrt()))
        norms.append(norm)
    defined = norms[0] > _DEAD_STD * total.sqrt()
    return torch.where(defined, (unit[0] * unit[1]).sum(dim=dims, keepdim=True), 0.0), defined


def relative_error(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Return the squared error over the teacher's mean square, both over the valid cells; 0 when there are none.

    A student that is 0 everywhere has error 1. Maps (B, C, h, w) of one shape, valid (B, 1, h, w) bool.
    """
    weight = valid.float()
    entries = (weight.sum() * teacher.shape[1]).clamp_min(1)
    energy = (teacher.square() * weight).sum() / entries
    return ((student - teacher).square() * weight).sum() / entries / energy.clamp_min(1e-6)


def pair_offsets(dilations: tuple[int, ...], height: int, width: int) -> list[tuple[int, int]]:
    """Return the (dy, dx) of all pairs; dilations that reach across the whole map are left out."""
    fitting = [dilation for dilation in dilations if dilation < min(height, width)]
    return [(dy * dilation, dx * dilation) for dilation in fitting for dy, dx in DIRECTIONS]


def pair_affinities(unit: Tensor, offsets: list[tuple[int, int]]) -> list[Tensor]:
    """Return, per offset (dy, dx), a = (1 + cosine) / 2 of every cell and its neighbour, kept in [1e-4, 1 - 1e-4].

    Each is (B, h - |dy|, w - |dx|); dy is not negative.
    """
    return [_affinity(cosine) for cosine in _PairCosines.apply(unit, offsets)]


def all_pair_affinities(unit: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    """Return `pair_affinities` as one vector, offset after offset, with fewer GPU kernels."""
    return _affinity(torch.cat([cosine.flatten() for cosine in _PairCosines.apply(unit, offsets)]))


def _affinity(cosine: Tensor) -> Tensor:
    return ((1 + cosine) / 2).clamp(1e-4, 1 - 1e-4)


class _PairCosines(torch.autograd.Function):
    """Inner products of cells with their neighbours.

    Written out because autograd would copy the whole map four times per offset in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, offsets: list[tuple[int, int]]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(unit)
        ctx.offsets = offsets
        pairs = (_pair(unit, offset) for offset in offsets)
        return tuple((first * second).sum(dim=1) for first, second in pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (unit,) = ctx.saved_tensors
        total = torch.zeros_like(unit)
        for grad, offset in zip(grads, ctx.offsets, strict=True):
            first, second = _pair(unit, offset)
            of_first, of_second = _pair(total, offset)
            of_first.addcmul_(grad.unsqueeze(1), second)
            of_second.addcmul_(grad.unsqueeze(1), first)
        return total, None


def balanced_kl(teacher: Tensor, student: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of q KL( a^T || a^S ) with weights, for affinities (P,) in (0, 1); the teacher gets no gradient.

    KL is Bernoulli's, q = a^T / mean(a^T) + (1 - a^T) / mean(1 - a^T); every mean has the weights. The weights sum to more
    than 0, else the loss is 0.
    """
    # Weights of 0 instead of a selection: the number of valid pairs never leaves the device. No pair at all gives 0.
    share = weight / weight.sum().clamp_min(1e-6)
    other = 1 - teacher
    alike, unlike = ((a * share).sum().clamp_min(1e-4) for a in (teacher, other))
    return _BernoulliKl.apply(teacher, student, share * (teacher / alike + other / unlike))


class _BernoulliKl(torch.autograd.Function):
    """Weighted sum of KL( a^T || a^S ), with the gradient written out: (a^S - a^T) / (a^S (1 - a^S))."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(teacher, student, weight)
        log_odds = torch.logit(teacher) - torch.logit(student)
        return torch.dot(weight, teacher * log_odds + torch.log1p(-teacher) - torch.log1p(-student))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        teacher, student, weight = ctx.saved_tensors
        return None, (student - teacher).mul_(weight * grad).div_(student * (1 - student)), None


def path_affinities(boundary: Tensor, offsets: list[tuple[int, int]]) -> list[Tensor]:
    """Return, per offset (dy, dx), 1 - the largest boundary on the straight path of a cell and its neighbour.

    boundary is (B, h, w) in [0, 1]; the offsets are multiples of DIRECTIONS; both ends count. Shapes and limits as in
    `pair_affinities`.
    """
    return [(1 - _path_max(boundary, offset)).clamp(1e-4, 1 - 1e-4) for offset in offsets]


def _path_max(boundary: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return (B, h - |dy|, w - |dx|): the maximum over the cells of each path, ends included."""
    (dy, dx), (height, width) = offset, boundary.shape[-2:]
    length = max(abs(dy), abs(dx))
    left = max(0, -dx)
    steps = (
        boundary[..., dy * k // length :, left + dx * k // length :][..., : height - dy, : width - abs(dx)]
        for k in range(length + 1)
    )
    return torch.stack(list(steps)).amax(dim=0)


def pair_valid(valid: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return (B, h - |dy|, w - |dx|) bool: pairs of which both cells are valid."""
    first, second = _pair(valid, offset)
    return (first & second).squeeze(1)


def pair_max(weight: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return (B, h - |dy|, w - |dx|): the larger of the weights (B, 1, h, w) of a pair's two cells."""
    first, second = _pair(weight, offset)
    return torch.maximum(first, second).squeeze(1)


def _pair(x: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return views of x at p and at p + offset, for all p for which both lie inside."""
    dy, dx = offset
    height, width = x.shape[-2:]
    if dx >= 0:
        return x[..., : height - dy, : width - dx], x[..., dy:, dx:]
    return x[..., : height - dy, -dx:], x[..., dy:, : width + dx]


def boundary_map(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return b in [0, 1], (B, h, w): one minus the mean of the two smallest affinities of a cell to its 8 neighbours.

    The explicit boundary that boundary distillation transfers. The mean of two makes it tolerant to the outlier tokens
    of transformers; neighbours outside the frame or the valid cells count as alike, and so do all neighbours of a
    cell that is not valid.
    """
    unit = standardised(features, valid)
    batch, _, height, width = unit.shape
    maps = []
    offsets = pair_offsets((1,), height, width)
    for (dy, dx), affinity in zip(offsets, pair_affinities(unit, offsets), strict=True):
        if valid is not None:
            affinity = torch.where(pair_valid(valid, (dy, dx)), affinity, 1.0)
        left, right = max(0, -dx), max(0, dx)
        maps.append(F.pad(affinity, (left, right, 0, dy), value=1.0))
        maps.append(F.pad(affinity, (right, left, dy, 0), value=1.0))
    if not maps:  # a map of one cell has no neighbours
        return unit.new_zeros(batch, height, width)
    smallest = torch.stack(maps, dim=1).topk(2, dim=1, largest=False).values
    return 1 - smallest.mean(dim=1).view(batch, height, width)

"""Focal and global distillation: object cells and background apart, by the teacher's attention, and relations of the whole map.

Source: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, arXiv 2111.11837. On every level of
the pyramid that both networks have, f a 1x1 convolution where the channels differ, over the valid cells i, channels k:

    A^S = N softmax_i( mean_k |F_ki| / T ),   A^C = C softmax_k( mean_i |F_ki| / T )            equations 4 to 7
    S_i = 1 / cells of the smallest object that covers i; of the background 1 / cells of the background     equation 3
    E_ki = S_i A^S_i A^C_k ( F^T_ki - f(F^S)_ki )^2 / mean F_T^2,   A of the teacher
    L_foreground = sum_{k, i in objects} E / (C objects),   L_background = sum_{k, other i} E / C            equation 8
    L_attention = mean_i |A^S_T - A^S_S| + mean_k |A^C_T - A^C_S|                                            equation 9
    R(F) = F + W_2 ReLU( LN( W_1 sum_i softmax_i( W_0 F ) F_i ) )                                            equation 11
    L_relation = mean_{k,i} ( R_T(F^T) - R_S(f(F^S)) )^2 / mean F_T^2                                        equation 10

Each is the mean over the images, and over the levels. W_0, W_1, W_2 are one set for each network, trained with the student;
W_2 starts at 0, so that R(F) = F at first.

Weights: the paper's (RetinaNet: alpha 1e-3, beta 5e-4, gamma 1e-3, lambda 5e-6) multiply sums over channels and cells, and as
much as the teacher's features are large. Divided by the number of objects and channels and by the teacher's mean square, a
student that is always 0 has a term of about 1; 1 and 0.5 keep the paper's two to one of foreground and background, 0.5 and 1
of attention and relation are ours.
Deviations: those divisions; levels of stride 64 and 128 take no part; an object is the whole cells that its box touches; the
finer of two maps is average-pooled to the other's grid; cells of which half or more pixels carry no label (padding) are in
no sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.options import option
from edgekd.data.augment import Objects
from edgekd.distill import taps
from edgekd.distill.base import Pyramid, Temperature, Weight
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch
from edgekd.train.losses.detection import box_masks

TASKS = ("detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weights and temperature."""

    foreground: Weight = option(1.0, "Weight of the term over object cells.")
    background: Weight = option(0.5, "Weight of the term over background cells.")
    attention: Weight = option(0.5, "Weight of the attention term.")
    relation: Weight = option(1.0, "Weight of the term that compares relations of the whole map.")
    temperature: Temperature = option(0.5, "Temperature T of the attention.")


class Method(nn.Module):
    """Terms `foreground`, `background`, `attention` and `relation`; per level an adapter and two relation blocks."""

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.options = options
        into, out = student.decoder_channels, teacher.decoder_channels
        strides = taps.shared_levels(teacher, student, "fgd")
        self.levels = nn.ModuleDict({str(stride): _Level(into, out) for stride in strides})

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms, each the mean over levels and images; 0 for images without labels."""
        found: list[dict[str, Tensor]] = []
        for stride, level in self.levels.items():
            assert isinstance(level, _Level)
            map_t, map_s, valid = taps.level_pair(teacher, student, batch, int(stride))
            found.append(self._terms(level, map_t, map_s, valid, regions_of(batch, valid)))
        weights = {name: getattr(self.options, name) for name in found[0]}
        return {name: weight * torch.stack([one[name] for one in found]).mean() for name, weight in weights.items()}

    def _terms(self, level: _Level, map_t: Tensor, map_s: Tensor, valid: Tensor, regions: Regions) -> dict[str, Tensor]:
        map_s = level.adapter(map_s)
        energy = (map_t.square() * valid).sum() / (valid.sum() * map_t.shape[1]).clamp_min(1)
        error = (map_t - map_s).square() / energy.clamp_min(1e-6)  # (B, C, h, w)
        in_t, in_s = (attention(x, valid, self.options.temperature) for x in (map_t, map_s))
        seen = (error * in_t.cells * in_t.channels).mean(dim=1, keepdim=True)  # (B, 1, h, w)
        terms = {
            "foreground": ((seen * regions.foreground).sum(dim=(1, 2, 3)) / regions.objects.clamp_min(1)).mean(),
            "background": (seen * regions.background).sum(dim=(1, 2, 3)).mean(),
        }
        cells = valid.sum(dim=(1, 2, 3)).clamp_min(1)
        apart = ((in_t.cells - in_s.cells).abs() * valid).sum(dim=(1, 2, 3)) / cells
        terms["attention"] = (apart + (in_t.channels - in_s.channels).abs().mean(dim=(1, 2, 3))).mean()
        relation = (level.of_teacher(map_t, valid) - level.of_student(map_s, valid)).square().mean(dim=1, keepdim=True)
        terms["relation"] = ((relation * valid).sum(dim=(1, 2, 3)) / cells).mean() / energy.clamp_min(1e-6)
        return terms


class _Level(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.adapter = taps.projection(into, out)
        self.of_teacher, self.of_student = GlobalContext(out), GlobalContext(out)


class GlobalContext(nn.Module):
    """R(F): the global context block of GCNet (arXiv 1904.11492, figure 4d) with half the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.key = nn.Conv2d(channels, 1, kernel_size=1)
        self.reduce = nn.Linear(channels, inner)
        self.norm = nn.LayerNorm(inner)
        self.expand = nn.Linear(inner, channels)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        shares = self.key(x).masked_fill(~valid, -1e4).flatten(2).softmax(dim=2)  # (B, 1, N)
        context = (x.flatten(2) * shares).sum(dim=2)  # (B, C)
        return x + self.expand(F.relu(self.norm(self.reduce(context))))[..., None, None]


class Attention(NamedTuple):
    """Attention of a map: cells (B, 1, h, w), mean 1 over valid cells, 0 elsewhere; channels (B, C, 1, 1), mean 1."""

    cells: Tensor
    channels: Tensor


def attention(x: Tensor, valid: Tensor, temperature: float) -> Attention:
    """Return A^S and A^C of a map (B, C, h, w) over the valid (B, 1, h, w) bool cells; zeros where there are none."""
    size = x.abs() * valid
    count = valid.sum(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    of_cells = (size.mean(dim=1, keepdim=True) / temperature).masked_fill(~valid, -1e9)
    cells = of_cells.flatten(2).softmax(dim=2).view_as(of_cells) * count
    of_channels = size.sum(dim=(2, 3), keepdim=True) / count.clamp_min(1) / temperature
    return Attention(cells * valid, of_channels.softmax(dim=1) * x.shape[1] * (count > 0))


class Regions(NamedTuple):
    """foreground, background: M S and (1 - M) S, (B, 1, h, w); objects: (B,) how many have a cell."""

    foreground: Tensor
    background: Tensor
    objects: Tensor


def regions_of(batch: Batch, valid: Tensor) -> Regions:
    """Return the weights of the cells of `valid` (B, 1, h, w) bool; the objects are the batch's boxes."""
    assert batch.objects is not None
    height, width = valid.shape[-2:]
    scale = valid.new_tensor([width / batch.masks.shape[2], height / batch.masks.shape[1]] * 2, dtype=torch.float32)
    found = [_of_image(one, scale.to(one.boxes), valid[i, 0]) for i, one in enumerate(batch.objects)]
    inside = torch.stack([one for one, _ in found]).unsqueeze(1)
    outside = (inside == 0) & valid
    background = outside / outside.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    return Regions(inside, background, torch.stack([count for _, count in found]))


def _of_image(objects: Objects, scale: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return S of the objects' cells (h, w), 0 elsewhere, and the number of objects that have one."""
    inside = box_masks(objects.boxes * scale, (valid.shape[0], valid.shape[1])) & valid  # (M, h, w)
    area = inside.sum(dim=(1, 2), keepdim=True)
    each = inside / area.clamp_min(1)
    nothing = torch.zeros_like(valid, dtype=each.dtype).unsqueeze(0)
    return torch.cat([nothing, each]).amax(dim=0), (area > 0).sum()

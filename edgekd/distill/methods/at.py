"""Attention transfer: where each stage is active, summed over channels.

Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928, equation 2 with p = 2 and
F_sum^2 as the attention map.

    Q(F) = vec( mean_c F_c^2 ),   q = Q / ||Q||_2                      per image, over its valid cells
    L = attention * mean over stages and images of || q_s - q_t ||_2^2

Weight: the paper's 1e3 and CIRKD's 1e4 multiply a mean over cells, which shrinks as the map grows. The sum over cells
does not: 1e4 on CIRKD's 64 x 128 map is 1e4 / 8192 = 1.22 on the sum, our default.
Deviations: the squared norm instead of the norm (as released); the finer of two maps is average-pooled to the other's
grid; cells of which half or more pixels carry no label are left out of Q.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.board.options import option
from edgekd.distill import relations
from edgekd.distill.base import Pyramid, Weight
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

TASKS = ("semantic", "detection", "instance")


@dataclass(frozen=True)
class Options:
    """Weight and stages."""

    attention: Weight = option(1.22, "Weight of the term.")
    strides: tuple[int, ...] = option(
        (8, 16, 32),
        "Backbone stages of the student. Each is compared with the teacher's stage of the same stride, or with its next "
        "finer one.",
    )


class Method(nn.Module):
    """One term, `attention`; no adapter.

    Raises:
        RecipeError: the student has no feature map at any of `strides`, or the teacher has no feature maps.
    """

    def __init__(self, options: Options, teacher: Pyramid, student: Pyramid) -> None:
        super().__init__()
        self.weight = options.attention
        self.teacher_stride = {
            s: relations.teacher_stride(teacher.channels, s) for s in options.strides if s in student.channels
        }
        if not self.teacher_stride:
            raise RecipeError(
                f"at.strides: the student has features at strides {sorted(student.channels)}, "
                f"got {sorted(options.strides)}; name at least one of them"
            )
        if not teacher.channels:
            raise RecipeError("at: this teacher shows no feature maps; give it `taps` or use kd or cwd")

    def forward(self, teacher: Outputs, student: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean squared distance of the attention maps; 0 when no cell is labelled."""
        total = batch.labelled.new_zeros(())
        for of_student, of_teacher in self.teacher_stride.items():
            map_t, map_s, valid = relations.on_common_grid(
                teacher.features[of_teacher].detach(), student.features[of_student], batch.labelled
            )
            distance = (relations.attention(map_s, valid) - relations.attention(map_t, valid)).square().sum(dim=1)
            total = total + distance.sum() / valid.flatten(1).any(dim=1).sum().clamp_min(1)
        return {"attention": self.weight * total / len(self.teacher_stride)}

"""Fake quantization in torch: values rounded to a grid of integers, with a learned scale.

The modules are parts of a student while it trains. They compute in float32 what QuantizeLinear and DequantizeLinear of ONNX
compute: divide, round half to even, add the zero point, saturate, and back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.quantize.grids import Grid
from edgekd.quantize.ranges import Scale


class _FakeQuantize(torch.autograd.Function):
    """Rounds to a grid. The gradient passes where nothing saturates; the scale has the gradient of LSQ.

    Source: "Learned Step Size Quantization", arXiv 1902.08153, equations 1 to 3. Here with a zero point.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, levels: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, scale, zero)
        ctx.levels = levels
        whole = torch.div(x, scale).round_().add_(zero).clamp_(*levels)
        return whole.sub_(zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, scale, zero = ctx.saved_tensors
        low, high = ctx.levels
        steps = x / scale
        whole = steps.round().add_(zero)
        is_inside = (whole >= low) & (whole <= high)
        to_input = gradient * is_inside
        to_scale = None
        if ctx.needs_input_grad[1]:
            # Inside: round(x / s) - x / s; outside: the last level.
            slope = whole.clamp_(low, high).sub_(zero).sub_(steps.mul_(is_inside)).mul_(gradient)
            to_scale = slope.sum_to_size(scale.shape)
        return to_input, to_scale, None, None


class Quantizer(nn.Module):
    """Rounds tensors to a grid with a learned scale. The parameter is the scale's logarithm: a scale stays positive.

    Args:
        scale: the first scale and the zero point, () or (C,).
        grid: the grid; its axis is the one of the tensors that are rounded here.
        count: number of values that share a scale, for LSQ's factor of the gradient 1 / sqrt(count * largest level); None: that
            of the tensor at hand, without its batch.
    """

    zero: Tensor

    def __init__(self, scale: Scale, grid: Grid, count: int | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.as_tensor(np.array(scale.scale, np.float32)).log())
        self.register_buffer("zero", torch.as_tensor(np.array(scale.zero_point, np.float32)))
        self.levels, self.axis, self.count = grid.levels, grid.axis, count

    def scale(self) -> Tensor:
        """Return the scale, () or (C,)."""
        return self.log_scale.exp()

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` on the grid, in its own type."""
        count = self.count or max(1, x[:1].numel())
        factor = 1 / math.sqrt(count * self.levels[1])
        scale = self.scale()
        # The value of the scale with a smaller gradient (LSQ, section 2.2).
        scale = _ScaledGradient.apply(scale, factor)
        shape = [1] * x.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        with torch.autocast(x.device.type, enabled=False):
            made = _FakeQuantize.apply(x.float(), scale.reshape(shape), self.zero.reshape(shape), self.levels)
        assert isinstance(made, Tensor)
        return made.to(x.dtype)


class _ScaledGradient(torch.autograd.Function):
    """The identity, with a gradient multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class WeightQuantizer(Quantizer):
    """A parametrization of a weight. `folding` (C_out,) is the factor that batch norm multiplies the weight with.

    With it, the product is on the grid, as in the exported graph: one scale for all channels holds after folding only.
    """

    folding: Tensor | None

    def __init__(self, scale: Scale, grid: Grid, count: int, folding: Tensor | None = None, axis: int = 0) -> None:
        super().__init__(scale, grid, count)
        self.register_buffer("folding", folding)
        self.channels = axis

    def forward(self, x: Tensor) -> Tensor:
        """Return the weight on the grid."""
        if self.folding is None:
            return super().forward(x)
        shape = [1] * x.ndim
        shape[self.channels] = -1
        folding = self.folding.reshape(shape)
        return super().forward(x * folding) / folding


class InputQuantizer(nn.Module):
    """Quantizes what an operator reads: one quantizer for each of its calls in a forward pass, None for a call in float.

    `before` is a forward pre-hook. As a bound method of a module in the tree it is copied with the student.
    """

    def __init__(self, quantizers: Sequence[Quantizer | None]) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(nn.Identity() if one is None else one for one in quantizers)
        self.call = 0

    def before(self, operator: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the operator's inputs with the first one on its grid."""
        quantizer = self.quantizers[self.call]
        self.call = (self.call + 1) % len(self.quantizers)
        return (quantizer(inputs[0]), *inputs[1:])

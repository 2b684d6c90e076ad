"""Building blocks that every NPU we know runs in int8: convolution, batch norm, ReLU, add, concat, small max pools.

Dense 3x3 convolutions instead of depthwise ones: int8 matrix units are idle most of the time in a depthwise layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution (no bias) and batch norm, with ReLU unless `relu` is False. Batch norm folds into the convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Residual(nn.Module):
    """ResNet's basic block: two 3x3 convolutions, added to their input. Source: arXiv 1512.03385, figure 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.before_relu(x))

    def before_relu(self, x: Tensor) -> Tensor:
        """Return the sum that the last ReLU takes."""
        return x + self.second(self.first(x))


class PooledContext(nn.Module):
    """Wide context without global pooling: the map beside its 5x5, 9x9 and 13x13 maxima, from three chained 5x5 pools.

    At stride 32 the last one sees 416 input pixels each way. Max pools keep an int8 tensor's scale, so the concat
    needs no requantisation. Source: the SPPF layer of YOLOv5 (Ultralytics), written afresh.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs // 2
        self.reduce = ConvNorm(inputs, hidden, kernel=1)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
        self.fuse = ConvNorm(4 * hidden, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.fuse(torch.cat(maps, dim=1))


class TopDown(nn.Module):
    """One step of the decoder: the coarser map, twice as large by repetition, plus the finer map's 1x1 projection.

    Nearest neighbour on purpose: a bilinear Resize that feeds another op is silently wrong on RV1126B
    while the vendor's simulator is right (airockchip/rknn-toolkit2 issue #579, reported 2026-09-20).
    The 3x3 convolution smooths the steps.
    """

    def __init__(self, finer: int, channels: int) -> None:
        super().__init__()
        self.lateral = ConvNorm(finer, channels, kernel=1, relu=False)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.relu = nn.ReLU(inplace=True)
        self.smooth = ConvNorm(channels, channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.smooth(self.relu(self.lateral(fine) + self.up(coarse)))


def initialise(module: nn.Module) -> None:
    """Draw weights for ReLU networks: He normal by fan-out for convolutions; batch norm starts as identity, but with
    scale zero at the end of each residual branch, so that a block starts as its input.

    Source: arXiv 1502.01852, equation 15; arXiv 1706.02677, section 5.1 (zero scale).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    for block in module.modules():
        if isinstance(block, Residual):
            last_norm = block.second[1]
            assert isinstance(last_norm, nn.BatchNorm2d)
            nn.init.zeros_(last_norm.weight)

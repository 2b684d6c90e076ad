"""Encoders of timm as backbones."""

from __future__ import annotations

import pytest
import torch

from edgekd.models.backbones import TimmBackbone


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mambaout_femto"])  # the second gives maps (B, H, W, C)
def test_maps_have_the_channels_and_strides_that_they_are_said_to_have(name: str) -> None:
    backbone = TimmBackbone(name, None).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    for stride, channels in backbone.channels.items():
        assert maps[stride].shape == (1, channels, 64 // stride, 96 // stride)

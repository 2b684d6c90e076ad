"""The ONNX export of networks of the user's own: what it takes, and what it refuses with their line or the opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from edgekd.core.recipe import Export
from edgekd.errors import UserError
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.export.parity import measure_parity
from edgekd.models.build import build_model
from edgekd.models.families.python import Options
from edgekd.models.session import torch_spec


class Net(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DependsOnTheImage(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.mean() > 0 else 2 * y


class WritesIntoItsInput(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return super().forward(x.relu_())


class Deformable(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.offsets = nn.Conv2d(num_classes, 18, 3, padding=1)
        self.deform = DeformConv2d(num_classes, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return self.deform(y, 3 * self.offsets(y))


def difference(net: str, folder: Path, opset: int = 18, **options: object) -> float:
    """Return the largest difference between ONNX and torch on an image of noise, relative to the largest logit."""
    torch.manual_seed(0)
    model = build_model("python", f"{__name__}:{net}", "semantic", 3, Options(**options)).eval()
    trained, settings = torch_spec(model, "semantic", ("a", "b", "c"), (64, 64)), Export(opset=opset)
    spec = deployed_spec(trained, model, settings)
    spec, _ = export_onnx(model, spec, settings, folder / "model.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    parity = measure_parity(model, trained, folder / "model.onnx", spec, [noise])
    assert parity["different"] == 0
    return float(parity["outputs_relative"])


def test_taps_and_a_network_that_writes_into_its_input_change_nothing(tmp_path: Path) -> None:
    assert difference("WritesIntoItsInput", tmp_path, taps={2: "conv"}) < 1e-5


def test_a_branch_on_the_image_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"cannot export this network: .*py:\d+, `return y if y.mean\(\) > 0") as caught:
        difference("DependsOnTheImage", tmp_path)
    assert "\n" not in str(caught.value)
    assert "def forward" not in capsys.readouterr().err


def test_an_operator_of_a_later_opset_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="operator DeformConv, expected an opset from 19 on, got 18; set export.opset=19"
    ):
        difference("Deformable", tmp_path)
    assert difference("Deformable", tmp_path, opset=19) < 1e-4

"""What is wrong with the student itself ends the stage `check`, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.stage import StageJob
from edgekd.errors import CheckpointError, RecipeError, UserError
from edgekd.preflight.stage import run
from tests.unit.core.small_recipe import small_recipe


class Net(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Conv2d(4, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class BranchesOnTheImage(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.mean() > 0 else 2 * y


class NotInAModuleList(Net):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.more = [nn.Conv2d(4, 4, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more[0](self.body(x)))


def checked(folder: Path, net: type[nn.Module], *overrides: str, **student: Any) -> StageResult:
    train = {"steps": 2, "batch_size": 2}
    section = {"family": "python", "variant": f"{__name__}:{net.__name__}", "train": train, **student}
    recipe = small_recipe(folder, *overrides, student=section, engines=[])
    data = Artifact(folder, {"kind": "dataset", "details": {"classes": ["a", "b", "c"]}})
    return run(StageJob(recipe, {"data": data}, folder))


def test_a_network_that_cannot_be_exported_stops_a_run_without_engines_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^check: export: torch cannot export .*`return y if .*--set check=warn$"):
        checked(tmp_path, BranchesOnTheImage)


def test_and_with_warn_it_is_trained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checked(tmp_path, BranchesOnTheImage, "check=warn").details == {"reports": []}
    assert "check: export: torch cannot export this network: " in caplog.messages[-1]


def test_a_network_that_does_not_come_back_from_its_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="student: two networks with the same weights give different outputs"):
        checked(tmp_path, NotInAModuleList)


def test_weights_of_a_head_for_other_classes_are_refused_and_can_be_left_out(tmp_path: Path) -> None:
    torch.save(Net(21).state_dict(), tmp_path / "weights.pth")
    path = str(tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"21 outputs in head, .* need 3; .* set student.checkpoint_skip: \[head\]"
    ):
        checked(tmp_path, Net, checkpoint=path)
    assert checked(tmp_path, Net, checkpoint=path, checkpoint_skip=["head"]).details == {"reports": []}


def test_a_checkpoint_with_two_sets_asks_for_the_key_of_its_section(tmp_path: Path) -> None:
    torch.save({"model": Net(3).state_dict(), "ema": Net(3).state_dict()}, tmp_path / "weights.pth")
    path = str(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"\(model, ema\); set student.checkpoint_key to one of them"):
        checked(tmp_path, Net, checkpoint=path)
    assert checked(tmp_path, Net, checkpoint=path, checkpoint_key="ema").details == {"reports": []}

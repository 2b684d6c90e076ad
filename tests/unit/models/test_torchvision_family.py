"""Teachers of torchvision: the same logits, features by stride, local weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from edgekd.errors import CheckpointError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.families.torchvision import VARIANTS, Options
from edgekd.models.weights import load_into, load_state


def build(variant: str, options: Options = Options()) -> DenseModel:  # noqa: B008  frozen
    return build_model("torchvision", variant, "semantic", 4, options)


@pytest.mark.parametrize("variant", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_checkpoint_and_logits_are_those_of_torchvision(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    aux = {} if variant.startswith("lraspp") else {"aux_loss": True}
    theirs = VARIANTS[variant](weights=None, weights_backbone=None, num_classes=4, **aux).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build(variant).eval()
    load_into(ours, load_state(tmp_path / "w.pth"), "teacher.checkpoint")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_normalized(image).logits, theirs(image)["out"])


@pytest.mark.parametrize("variant", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_a_checkpoint_may_have_been_trained_with_another_mean_and_std(variant: str) -> None:
    assert build(variant).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    model = build(variant, Options(mean=(0, 0, 0), std=(1, 1, 1))).eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(images).logits, model.forward_normalized(images).logits)


def test_features_are_the_last_map_of_each_stride() -> None:
    assert build("fcn_resnet50").channels == {2: 64, 4: 256, 8: 2048}
    assert build("lraspp_mobilenet_v3_large").channels == {2: 16, 4: 24, 8: 40, 16: 960}


@pytest.mark.parametrize(
    ("variant", "classifier"), [("fcn_resnet50", "resnet50"), ("lraspp_mobilenet_v3_large", "mobilenet_v3_large")]
)
def test_backbone_takes_imagenet_weights_from_a_file(variant: str, classifier: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torchvision.models.get_model(classifier, weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth")
    model = build(variant, Options(encoder_weights=str(tmp_path / "w.pth")))
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[key if key in state else f"features.{key}"])


def test_backbone_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.get_model("resnet18", weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w.pth belongs to another network: \d+ of \d+ weights are missing"):
        build("fcn_resnet50", Options(encoder_weights=str(tmp_path / "w.pth")))

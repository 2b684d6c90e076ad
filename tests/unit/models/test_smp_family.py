"""Networks of segmentation-models-pytorch: encoders, their weights, their strides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from edgekd.errors import CheckpointError, RecipeError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.families.smp import Options
from edgekd.models.weights import load_into, load_state, save_state

WEIGHTS = Path(__file__).parents[4] / "shared" / "weights"


def build(variant: str, **options: Any) -> DenseModel:
    torch.manual_seed(0)
    return build_model("smp", variant, "semantic", 4, Options(**options))


def test_encoder_gives_mean_and_std() -> None:
    assert build("fpn", encoder="tf_efficientnet_lite2").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    resnet = build("fpn", encoder="resnet18")
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("variant", "options", "channels", "size_divisor"),
    [
        ("fpn", {}, {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}, 32),
        ("segformer", {}, {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}, 32),
        ("deeplabv3plus", {}, {2: 64, 4: 64, 8: 128, 16: 512}, 16),
        ("deeplabv3plus", {"output_stride": 8}, {2: 64, 4: 64, 8: 512}, 8),
        ("pspnet", {}, {2: 64, 4: 64, 8: 512}, 8),
        ("pspnet", {"output_stride": 32}, {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}, 32),
    ],
)
def test_dilated_encoders_declare_the_strides_they_have(
    variant: str, options: dict[str, Any], channels: dict[int, int], size_divisor: int
) -> None:
    model = build(variant, encoder="resnet18", **options)
    assert model.channels == channels
    assert model.size_divisor == size_divisor
    with torch.no_grad():
        outputs = model.eval()(torch.rand(1, 3, 64, 96))
    assert {stride: tuple(f.shape[1:]) for stride, f in outputs.features.items()} == {
        stride: (channels[stride], 64 // stride, 96 // stride) for stride in channels
    }
    assert outputs.logits.shape == (1, 4, 64, 96)


@pytest.mark.parametrize(
    ("encoder", "strides"),
    [("convnext_atto", [4, 8, 16, 32]), ("mit_b0", [4, 8, 16, 32]), ("mobileone_s0", [2, 4, 8, 16, 32])],
)
def test_encoders_of_other_shapes_declare_real_features(encoder: str, strides: list[int]) -> None:
    model = build("segformer", encoder=encoder)
    with torch.no_grad():
        features = model.eval()(torch.rand(1, 3, 64, 96)).features
    assert list(model.channels) == strides
    assert {s: f.shape[1:] for s, f in features.items()} == {
        s: (c, 64 // s, 96 // s) for s, c in model.channels.items()
    }


def test_encoder_with_a_built_in_size_runs_at_others_when_told_to() -> None:
    model = build("fpn", encoder="swin_tiny_patch4_window7_224", encoder_options={"strict_img_size": False}).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 96)).logits.shape == (1, 4, 64, 96)


def test_a_checkpoint_may_have_been_trained_with_another_mean_and_std() -> None:
    model = build("fpn", encoder="mobilenetv3_small_050", mean=(0, 0, 0), std=(1, 1, 1)).eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(images).logits, model.forward_normalized(images).logits)


def test_decoder_width_is_the_recipe_s() -> None:
    assert build("fpn", encoder="resnet18", decoder_channels=64).decoder_channels == 64
    assert build("segformer", encoder="resnet18", decoder_channels=64).decoder_channels == 64


def test_logits_are_those_of_the_library() -> None:
    torch.manual_seed(0)
    theirs = smp.FPN("tu-resnet18", encoder_weights=None, classes=4).eval()
    ours = build("fpn", encoder="resnet18").eval()
    load_into(ours, theirs.state_dict(), "a checkpoint of segmentation-models-pytorch")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(ours.forward_normalized(image).logits, theirs(image))


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto"])
def test_encoder_takes_timm_weights(tmp_path: Path, encoder: str) -> None:
    torch.manual_seed(5)
    classifier = timm.create_model(encoder, pretrained=False).eval()
    save_state(classifier, tmp_path / "w.safetensors")
    model = build("fpn", encoder=encoder, encoder_weights=str(tmp_path / "w.safetensors")).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(model.forward_normalized(image).features[32], expected)


def test_encoder_of_the_library_takes_its_own_weights(tmp_path: Path) -> None:
    other = smp.FPN("mit_b0", encoder_weights=None)
    torch.nn.init.ones_(other.encoder.patch_embed1.proj.weight)
    save_state(other.encoder, tmp_path / "w.safetensors")
    model = build("fpn", encoder="mit_b0", encoder_weights=str(tmp_path / "w.safetensors"))
    assert (model.state_dict()["encoder.patch_embed1.proj.weight"] == 1).all()


def test_incomplete_encoder_weights_name_the_first_missing_key(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 of \d+ weights are missing \(first: layer2.0.conv1.weight\)"):
        build("fpn", encoder="resnet18", encoder_weights=str(tmp_path / "w.pth"))


def test_weights_of_a_larger_encoder_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"belongs to another network: .* unexpected"):
        build("fpn", encoder="resnet18", encoder_weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("fpn", {"encoder": "resnet81"}, "smp: no encoder is called 'resnet81'; did you mean 'resnet"),
        ("fpn", {"encoder": "q"}, r"smp: no encoder is called 'q'; timm.list_models\(\) lists them"),
        ("fpn", {"decoder_channels": 40}, "decoder_channels must be divisible by 32"),
        ("fpn", {"output_stride": 8}, r"output_stride 8 is not one of \(32,\)"),
        ("pspnet", {"encoder": "pvt_v2_b0"}, "smp pspnet cannot use encoder 'pvt_v2_b0': .*output_stride"),
        ("fpn", {"encoder": "swin_tiny_patch4_window7_224"}, "takes only 224x224 images; set encoder_options.img_size"),
        ("fpn", {"encoder": "resnet18", "encoder_options": {"widht": 2}}, "cannot use encoder 'resnet18': .*widht"),
        ("fpn", {"encoder": "mit_b0", "encoder_options": {"width": 2}}, "for timm encoders only"),
    ],
)
def test_options_that_do_not_fit_are_refused(variant: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(variant, **options)


@pytest.mark.data
@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
@pytest.mark.parametrize("variant", ["fpn", "pspnet"])
def test_real_backbones_load_completely(encoder: str, variant: str) -> None:
    path = WEIGHTS / f"{encoder}.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in shared/weights beside the repository")
    model = build(variant, encoder=encoder, encoder_weights=str(path))
    given = load_state(path)
    filled = {
        key.removeprefix("encoder.model."): v for key, v in model.state_dict().items() if key.startswith("encoder.")
    }
    assert len(filled) > 200
    assert all(torch.equal(given[key], value) for key, value in filled.items())


@pytest.mark.data
def test_real_backbone_of_another_size_is_refused() -> None:
    path = WEIGHTS / "tf_efficientnet_lite0.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in shared/weights beside the repository")
    with pytest.raises(CheckpointError, match="belongs to another network"):
        build("fpn", encoder="tf_efficientnet_lite2", encoder_weights=str(path))

"""Networks of the user's own, by `package.module:function`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.families import edgeseg
from edgekd.models.families.python import Options
from edgekd.models.weights import load_into, load_state, save_state


class TwoLevels(nn.Module):
    """Logits at stride 8 in a mapping, as torchvision gives them."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.coarse = nn.Conv2d(width, 2 * width, kernel_size=2, stride=2)
        self.head = nn.Conv2d(2 * width, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.coarse(self.fine(x)))}


def two_levels(num_classes: int, width: int = 6) -> nn.Module:
    return TwoLevels(num_classes, width)


def dense(num_classes: int) -> DenseModel:
    return build_model("edgeseg", "n", "semantic", num_classes, edgeseg.Options())


def returns_text(num_classes: int) -> str:
    return "no network"


def one_class_too_many(num_classes: int) -> nn.Module:
    return TwoLevels(num_classes + 1, 4)


def fails_in_forward(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))


class Auxiliary(TwoLevels):
    """Gives more than its logits in training, as networks with deep supervision do."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)["out"]
        return (out, out) if self.training else out


def auxiliary(num_classes: int) -> nn.Module:
    net = Auxiliary(num_classes, 4)
    net.norm = nn.BatchNorm2d(3)
    net.dropout = nn.Dropout()
    net.register_forward_pre_hook(lambda module, inputs: (module.dropout(module.norm(inputs[0])),))
    return net


class Patches(nn.Module):
    """Takes images of which the sides are divisible by 14, as DINOv2's do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, num_classes, kernel_size=14, stride=14)
        self.pair = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 14 == 0, "should be divisible by patch size (14)"
        self.pair([x])
        return self.cut(x)


def fails_when_made(num_classes: int) -> nn.Module:
    raise ValueError("num_classes must be 7")


def dense_of_wrong_size(num_classes: int) -> DenseModel:
    net = build_model("edgeseg", "n", "semantic", num_classes, edgeseg.Options())
    net.channels = {**net.channels, 8: 5}
    return net


def build(function: str, **options: Any) -> DenseModel:
    return build_model("python", f"{__name__}:{function}", "semantic", 3, Options(**options))


def test_plain_network_has_logits_at_input_size_and_no_features() -> None:
    outputs = build("two_levels")(torch.rand(2, 3, 64, 96))
    assert outputs.logits.shape == (2, 3, 64, 96)
    assert outputs.features == {}
    assert outputs.decoder.shape == (2, 3, 8, 12)


def test_taps_give_features_fine_to_coarse() -> None:
    model = build("two_levels", options={"width": 10}, taps={8: "coarse", 4: "fine"}, decoder_tap="coarse")
    image = torch.rand(1, 3, 64, 96)
    outputs = model.forward_normalized(image)
    assert model.channels == {4: 10, 8: 20}
    assert list(model.channels) == list(outputs.features) == [4, 8]
    assert model.decoder_channels == 20
    assert torch.equal(outputs.features[4], model.net.fine(image))
    assert torch.equal(outputs.decoder, outputs.features[8])


def test_deep_copy_taps_itself_and_not_the_original() -> None:
    model = build("two_levels", taps={4: "fine"})
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied.net.fine.weight)
    nn.init.zeros_(copied.net.fine.bias)
    assert not copied(torch.rand(1, 3, 64, 64)).features[4].any()
    assert model.tapped == {}


def test_dense_model_is_taken_as_it_is() -> None:
    assert isinstance(build("dense"), edgeseg.EdgeSeg)


def test_weight_files_use_the_names_of_the_network_itself(tmp_path: Path) -> None:
    model = build("two_levels")
    save_state(model, tmp_path / "w.safetensors")
    state = load_state(tmp_path / "w.safetensors")
    assert sorted(state) == sorted(TwoLevels(3, 6).state_dict())
    load_into(model, state, "teacher.checkpoint")


def test_module_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "network_beside_me.py").write_text(
        "from torch import nn\ndef make(num_classes):\n    return nn.Conv2d(3, num_classes, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    model = build_model("python", "network_beside_me:make", "semantic", 3, Options())
    assert model(torch.rand(1, 3, 32, 32)).logits.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("two_levels", "python 'two_levels': expected package.module:function"),
        ("no_such_module_here:f", "cannot import 'no_such_module_here'"),
        (f"{__name__}:no_such_function", "has no function 'no_such_function'"),
        (f"{__name__}:returns_text", "expected an nn.Module or a DenseModel, got str"),
        (f"{__name__}:one_class_too_many", "expected 3 channels of logits, got 4"),
        (f"{__name__}:fails_when_made", "cannot be called: ValueError: num_classes must be 7"),
        (f"{__name__}:dense_of_wrong_size", "`channels` and `decoder_channels` say .*8: 5"),
        (f"{__name__}:fails_in_forward", r"fails on an image \(1, 3, 64, 64\): RuntimeError: .*must return logits"),
    ],
)
def test_functions_that_do_not_fit_are_refused_in_one_line(variant: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_model("python", variant, "semantic", 3, Options())
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_something_else_in_training_is_refused_and_left_as_it_was() -> None:
    model = build("auxiliary")
    buffers = copy.deepcopy(dict(model.named_buffers()))
    drawn = torch.random.get_rng_state()
    with pytest.raises(RecipeError, match="in training mode: TypeError: returned a tuple; it must return logits"):
        model.check_trains()
    assert model.training
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    build("two_levels").check_trains()


def test_a_network_of_any_divisor_is_tried_at_a_size_that_it_takes() -> None:
    model = build("Patches", size_divisor=14, taps={14: "cut"})
    assert model.channels == {14: 3}
    with pytest.raises(RecipeError, match="tap 'pair' is declared with stride 14, got output a list"):
        build("Patches", size_divisor=14, taps={14: "pair"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"widht": 3}}, "cannot be called: .*widht"),
        ({"taps": {4: "fien"}}, "no submodule 'fien'; did you mean 'fine'"),
        ({"taps": {8: "fine"}}, r"tap 'fine' is declared with stride 8, got output \(1, 6, 16, 16\) for input size 64"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("two_levels", **options)

"""Networks of the user's own, by `package.module:function`."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError, UserError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model, check_input_size
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
    assert model.taps[4].output is None


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
        (
            f"{__name__}:one_class_too_many",
            r"expected 3 channels of logits, \(B, 3, h, w\), got float32 \(1, 4, 8, 8\)",
        ),
        (
            f"{__name__}:fails_when_made",
            r"cannot be called with num_classes: .*py:\d+, `raise ValueError.*`: ValueError: num_classes must be 7",
        ),
        (f"{__name__}:dense_of_wrong_size", "`channels` and `decoder_channels` say .*8: 5"),
        (
            f"{__name__}:fails_in_forward",
            r"fails on an image \(1, 3, 64, 64\): RuntimeError: .*needs options.fixed_size",
        ),
    ],
)
def test_functions_that_do_not_fit_are_refused_in_one_line(variant: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_model("python", variant, "semantic", 3, Options())
    assert "\n" not in str(caught.value)


def test_a_network_is_built_without_a_trace_of_the_first_run() -> None:
    torch.manual_seed(0)
    drawn = [torch.rand(1), auxiliary(3), torch.rand(1)][2]
    torch.manual_seed(0)
    model = [torch.rand(1), build("auxiliary")][1]
    assert torch.equal(torch.rand(1), drawn)
    assert model.training
    assert model.net.norm.num_batches_tracked == 0


def test_a_network_of_any_divisor_is_tried_at_a_size_that_it_takes() -> None:
    model = build("Patches", size_divisor=14, taps={14: "cut"})
    assert model.channels == {14: 3}
    with pytest.raises(RecipeError, match="tap 'pair' is declared with stride 14, got output a list"):
        build("Patches", size_divisor=14, taps={14: "pair"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"widht": 3}}, "cannot be called with num_classes, widht: .*widht"),
        ({"taps": {4: "fien"}}, "no submodule 'fien'; did you mean 'fine'"),
        (
            {"taps": {8: "fine"}},
            r"tap 'fine' is declared with stride 8, got output \(1, 6, 16, 16\) for input size \(64, 64\)",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("two_levels", **options)


@dataclass
class Result:
    loss: Any
    logits: Tensor


class Named(NamedTuple):
    features: Tensor
    logits: Tensor


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As transformers' outputs: a mapping that has its values as attributes."""


RETURNS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "out": lambda y: {"out": y, "aux": y * 0},
    "logits": lambda y: {"loss": None, "logits": y},
    "other name": lambda y: {"segmentation": y},
    "model output": lambda y: ModelOutput(logits=y, hidden_states=(y * 0, y * 0)),
    "named tuple": lambda y: Named(y * 0, y),
    "dataclass": lambda y: Result(None, y),
    "one": lambda y: [y],
    "first": lambda y: [y, y * 0],
    "last": lambda y: (y * 0, y),
    "nested": lambda y: {"heads": [y * 0, y], "loss": y.mean()},
    "double": lambda y: y.double(),
    "half": lambda y: y.half(),
    "not contiguous": lambda y: y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "class map": lambda y: y.argmax(1),
    "class map with a channel": lambda y: y.argmax(1, keepdim=True),
    "channels last": lambda y: y.permute(0, 2, 3, 1),
    "softmax": lambda y: y.softmax(1),
    "sigmoid": lambda y: y.sigmoid(),
    "log softmax": lambda y: y.log_softmax(1),
    "not finite": lambda y: y * float("nan"),
    "text": lambda y: "logits",
    "number of images": lambda y: y.mean((2, 3)),
    "nothing": lambda y: None,
}


class Returning(nn.Module):
    def __init__(self, num_classes: int, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, num_classes, kernel_size=2, stride=2), how

    def forward(self, x: Tensor) -> Any:
        return RETURNS[self.how](self.conv(x))


@pytest.mark.parametrize(
    ("how", "output"),
    [
        ("tensor", None), ("out", None), ("logits", None), ("other name", None), ("model output", None),
        ("named tuple", None), ("dataclass", None), ("one", None), ("first", 0), ("last", 1), ("last", "1"),
        ("nested", "heads.1"), ("double", None), ("half", None), ("not contiguous", None),
        ("tensor", 0),  # a network may return a list in training only
    ],
)  # fmt: skip
def test_the_logits_are_found_in_what_networks_return(how: str, output: Any) -> None:
    torch.manual_seed(0)
    model = build("Returning", options={"how": how}, output=output)
    image = torch.rand(1, 3, 32, 64)
    expected = nn.functional.interpolate(model.net.conv(image), (32, 64), mode="bilinear", align_corners=False)
    logits = model.eval().forward_normalized(image).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-2, atol=1e-3)  # half


@pytest.mark.parametrize(
    ("how", "output", "message"),
    [
        (
            "first",
            None,
            r"returns a list with 0: \(1, 3, 32, 32\), 1: \(1, 3, 32, 32\); set options.output to the name or",
        ),
        ("nested", "head.1", r"returns a dict with heads.0: .*, heads.1: .*; set options.output"),
        ("class map", None, r"got int64 \(1, 32, 32\); return the logits, not their argmax"),
        ("class map with a channel", None, r"got int64 \(1, 1, 32, 32\); return the logits, not their argmax"),
        ("channels last", None, r"got float32 \(1, 32, 32, 3\); its channels are last: x.permute\(0, 3, 1, 2\)"),
        ("softmax", None, "returns probabilities, expected logits"),
        ("sigmoid", None, "returns probabilities, expected logits"),
        ("not finite", None, "its logits for an image of noise are not finite"),
        ("text", None, "returns a str with no tensor; return logits"),
        ("nothing", None, "returns a NoneType with no tensor; return logits"),
        ("number of images", None, r"expected 3 channels of logits, \(B, 3, h, w\), got float32 \(1, 3\)"),
    ],
)
def test_what_is_no_map_of_logits_is_refused_with_what_to_return(how: str, output: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^python .*Returning: .*{message}") as caught:
        build("Returning", options={"how": how}, output=output)
    assert "\n" not in str(caught.value)


def test_log_probabilities_are_logits() -> None:
    build("Returning", options={"how": "log softmax"})


def test_one_channel_for_two_classes_gets_a_second_one() -> None:
    with pytest.raises(RecipeError, match=r"of one channel x make two, .*torch.cat\(\[torch.zeros_like\(x\), x\], 1\)"):
        build_model("python", f"{__name__}:one_channel", "semantic", 2, Options())


def one_channel(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, 1, kernel_size=1)


class WithAuxiliary(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.aux = (nn.Conv2d(3, num_classes, kernel_size=4, stride=4) for _ in range(2))

    def forward(self, x: Tensor) -> Any:
        return {"out": self.conv(x), "aux": self.aux(x), "edges": x[:, :1]}


def test_auxiliary_logits_are_there_in_training_at_the_inputs_size() -> None:
    model = build("WithAuxiliary", auxiliary_weight=0.3)
    image = torch.rand(1, 3, 32, 64)
    outputs = model.train().forward_normalized(image)
    expected = nn.functional.interpolate(model.net.aux(image), (32, 64), mode="bilinear", align_corners=False)
    assert list(outputs.auxiliary) == ["aux"]
    assert torch.equal(outputs.auxiliary["aux"], expected)
    assert outputs.auxiliary_weight == 0.3
    assert model.eval().forward_normalized(image).auxiliary == {}
    assert build("WithAuxiliary", auxiliary_weight=0).train().forward_normalized(image).auxiliary == {}


class OneSize(nn.Module):
    """Takes images of 28x42 only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, kernel_size=14, stride=14)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Conv2d(4, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.mix(x.flatten(2)).view(x.shape))


def test_a_network_of_one_size_is_measured_at_it_and_takes_no_other() -> None:
    with pytest.raises(RecipeError, match=r"RuntimeError: .*needs options.fixed_size: \[height, width\]"):
        build("OneSize")
    model = build("OneSize", fixed_size=(28, 42), taps={14: "stem"})
    assert model.channels == {14: 4}
    check_input_size(model, (28, 42))
    with pytest.raises(
        UserError, match=r"takes only input \[28, 42\] \(height, width\), got \[42, 28\]; set data.size to"
    ):
        check_input_size(model, (42, 28))
    with pytest.raises(RecipeError, match="tap 'stem' is declared with stride 7"):
        build("OneSize", fixed_size=(28, 42), taps={7: "stem"})


def wrapped(num_classes: int) -> nn.Module:
    return nn.DataParallel(torch.compile(TwoLevels(num_classes, 6), backend="eager"))


def test_wrappers_are_taken_off() -> None:
    model = build("wrapped", taps={4: "fine"})
    assert sorted(model.weights_module().state_dict()) == sorted(TwoLevels(3, 6).state_dict())
    assert model.channels == {4: 6}


def scripted(num_classes: int, part: bool = False) -> nn.Module:
    made = torch.jit.trace(nn.Conv2d(3, num_classes, kernel_size=1), torch.zeros(1, 3, 8, 8))
    return nn.Sequential(OrderedDict(inner=made)) if part else made


def half(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, kernel_size=1).half()


def on_meta(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, kernel_size=1, device="meta")


def returns_a_class(num_classes: int) -> type[nn.Module]:
    return TwoLevels


class TapNotCalled(TwoLevels):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 4)
        self.spare = nn.Conv2d(3, 3, kernel_size=1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("scripted", {}, r"got a scripted module \(torch.jit\), which cannot be exported; return it as it was before"),
        ("scripted", {"options": {"part": True}}, r"got a scripted module \(torch.jit\) at 'inner'"),
        ("half", {}, r"expected float32 parameters, got float16 \(weight\); return net.float\(\)"),
        ("on_meta", {}, "its parameter weight is on the meta device"),
        ("returns_a_class", {}, "got the class TwoLevels, not a network of it"),
        ("TapNotCalled", {"taps": {4: "spare"}}, "tap 'spare' is not called in the forward pass"),
    ],
)
def test_networks_that_cannot_be_exported_trained_or_tapped_are_refused(
    function: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        build(function, **options)


def test_an_error_while_the_module_is_imported_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_network.py").write_text("import os\nos.environ['NO_SUCH_VARIABLE_HERE']\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        build_model("python", "broken_network:net", "semantic", 3, Options())
    assert str(caught.value) == (
        "python broken_network:net: cannot import 'broken_network': broken_network.py:2, "
        "`os.environ['NO_SUCH_VARIABLE_HERE']`: KeyError: 'NO_SUCH_VARIABLE_HERE'"
    )


def test_taps_work_after_an_export() -> None:
    """torch.export puts copies of dicts and lists back after tracing."""
    model = build("two_levels", taps={4: "fine", 8: "coarse"}, decoder_tap="coarse").eval()
    image = torch.rand(1, 3, 64, 64)
    torch.export.export(OnlyLogits(model), (image,), strict=False)
    outputs = model.forward_normalized(image)
    assert torch.equal(outputs.features[4], model.net.fine(image))
    assert torch.equal(outputs.decoder, outputs.features[8])


class OnlyLogits(nn.Module):
    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_normalized(x).logits

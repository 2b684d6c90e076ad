"""The student family that every chip can run."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx
import onnxruntime
import onnxsim
import pytest
import torch
from torch import Tensor, nn

from edgekd.models.base import DenseModel
from edgekd.models.build import build_model, count
from edgekd.models.families import edgeseg

ALLOWED = {"Conv", "Relu", "Add", "Concat", "MaxPool", "Resize"}


class OnlyLogits(nn.Module):
    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.forward_normalized(image).logits


def student(variant: str, num_classes: int = 11) -> DenseModel:
    torch.manual_seed(0)
    return build_model("edgeseg", variant, "semantic", num_classes, edgeseg.Options())


@functools.cache
def exported(variant: str) -> tuple[DenseModel, onnx.ModelProto]:
    """Return a student with batch-norm statistics that are not the initial ones, and its ONNX graph at 64x96."""
    model = student(variant)
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 64, 96))
    program = torch.onnx.export(
        OnlyLogits(model).eval(), (torch.zeros(1, 3, 64, 96),), dynamo=True, opset_version=18,
        input_names=["image"], output_names=["logits"], verbose=False,
    )  # fmt: skip
    simplified, same = onnxsim.simplify(program.model_proto)
    assert same
    return model, simplified


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


@pytest.mark.parametrize("variant", edgeseg.VARIANTS)
def test_exported_graph_holds_only_what_every_chip_runs(variant: str) -> None:
    graph = exported(variant)[1].graph
    assert {node.op_type for node in graph.node} == ALLOWED
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        found = attributes(node)
        if node.op_type == "Resize":
            scales = constants[node.input[2]].tolist()  # given as scales, not as an arbitrary size
            assert scales in ([1, 1, 2, 2], [1, 1, 4, 4])
            assert found["mode"] in (b"nearest", b"linear")
        if node.op_type == "MaxPool":
            assert found["kernel_shape"] == [5, 5]
            assert found.get("ceil_mode", 0) == 0
        if node.op_type == "Conv":
            assert set(found["kernel_shape"]) <= {1, 3}
            assert found.get("group", 1) == 1


def test_bilinear_resize_is_the_last_node_and_feeds_none_other() -> None:
    graph = exported("n")[1].graph
    bilinear = [node for node in graph.node if node.op_type == "Resize" and attributes(node)["mode"] == b"linear"]
    assert [list(node.output) for node in bilinear] == [["logits"]]


def test_onnx_runtime_gives_the_same_logits(tmp_path: Path) -> None:
    model, graph = exported("n")
    path = tmp_path / "n.onnx"
    onnx.save(graph, path)
    image = torch.randn(1, 3, 64, 96)
    (logits,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"image": image.numpy()}
    )
    with torch.no_grad():
        expected = model.eval().forward_normalized(image).logits
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-4)


def test_residual_blocks_start_as_their_input_and_learn_from_the_second_step() -> None:
    model = student("n").train()
    block = model.get_submodule("stages.1.1")
    x = torch.rand(2, 24, 8, 8)  # not negative, so that the block's last ReLU changes nothing
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 64, 96)).logits.square().mean().backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_rare_class_is_learned_in_few_steps() -> None:
    """A bright bar of two percent of the pixels; tiny initial classifier weights never found it."""
    generator = torch.Generator().manual_seed(1)
    model = student("n", num_classes=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        images, masks = bars(generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images).logits, masks).backward()
        optimizer.step()
    images, masks = bars(generator)
    with torch.no_grad():
        found = model.eval()(images).logits.argmax(1) == 1
    assert (found & (masks == 1)).sum() / (found | (masks == 1)).sum() > 0.5


def bars(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return eight noise images (8, 3, 64, 64) with a bar of 4x20 pixels somewhere, and their masks."""
    images = torch.rand(8, 3, 64, 64, generator=generator) * 0.5
    masks = torch.zeros(8, 64, 64, dtype=torch.long)
    for image, mask in zip(images, masks, strict=True):
        top, left = (int(v) for v in torch.randint(0, 44, (2,), generator=generator))
        mask[top : top + 4, left : left + 20] = 1
        image[0] += 0.4 * mask
    return images, masks


@pytest.mark.parametrize(
    ("variant", "millions", "giga_macs"),
    [("n", 0.12, 0.10), ("xs", 0.23, 0.20), ("s", 0.49, 0.40), ("m", 0.88, 0.58), ("l", 3.53, 1.49)],
)
def test_cost_is_what_the_documentation_says(variant: str, millions: float, giga_macs: float) -> None:
    params, macs = count(student(variant), (256, 320))
    assert round(params / 1e6, 2) == millions
    assert round(macs / 1e9, 2) == giga_macs
    rows = [line.split() for line in (edgeseg.__doc__ or "").splitlines()]
    assert [variant, f"{millions:.2f}", "M", f"{giga_macs:.2f}", "G"] in [row[:5] for row in rows]


def test_maps_before_the_last_relu_are_shown_and_the_network_is_the_same() -> None:
    usual = student("n").eval()
    for layer in usual.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)  # a new residual block starts as its input, which has no negative values
    other = build_model("edgeseg", "n", "semantic", 11, edgeseg.Options(before_relu=True)).eval()
    other.load_state_dict(usual.state_dict())
    images = torch.rand(1, 3, 64, 96)
    after, before = usual(images), other(images)
    assert torch.equal(after.logits, before.logits)
    for stride, features in before.features.items():
        assert features.min() < 0
        assert torch.equal(features.relu(), after.features[stride])

"""Fake quantization in torch: gradients by hand, the exported graph with Q/DQ pairs in ONNX Runtime as the oracle."""

from __future__ import annotations

import copy
import os
import signal
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.board.specs import ModelSpec
from edgekd.core.recipe import Export
from edgekd.errors import ArtifactError, UserError
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.session import torch_spec
from edgekd.quantize.fake_quantizers import Quantizer
from edgekd.quantize.grids import Grid, Placement
from edgekd.quantize.qat import FakeQuantization, fake_quantized
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale, calibrate
from edgekd.quantize.reference import runner
from edgekd.quantize.schemes import qdq, qdq_signed
from edgekd.train.loop import fit
from tests import tiny_task
from tests.command import forked

SIZE = (16, 24)


class Levels(DenseModel):
    """A trunk whose second norm has a factor 0, a convolution shared by two levels with a norm each, depthwise, and matrices."""

    size_divisor = 4
    level_strides = ()

    def __init__(self) -> None:
        super().__init__((0.5,) * 3, (0.25,) * 3)
        self.channels, self.decoder_channels = {2: 8}, 8
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.shared = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.tokens, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)
        self.classifier = nn.Conv2d(8, 3, 1)

    def forward_normalized(self, images: Tensor) -> Outputs:
        fine = self.stem(images)
        x = fine + self.depthwise(fine)
        coarse = F.max_pool2d(x, 2)
        levels = [self.norms[i](self.shared(one)).relu() for i, one in enumerate((x, coarse))]
        y = levels[0] + self.up(levels[1])
        y = y + self.tokens(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # the simplifier renames its weight
        y = y * self.gate(y.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
        return Outputs({"logits": F.interpolate(self.classifier(y), scale_factor=2.0)}, {2: fine}, y)


def network() -> Levels:
    torch.manual_seed(0)
    model = Levels()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    with torch.no_grad():
        model.depthwise[1].weight[:3] = 0  # type: ignore[index,union-attr]
    return model.eval()


def images(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"image": rng.standard_normal((1, 3, *SIZE)).astype(np.float32)} for _ in range(count)]


def export(model: DenseModel, path: Path) -> ModelSpec:
    spec = torch_spec(model, "semantic", tuple("abc"), SIZE)
    return export_onnx(model, spec, Export(upsampling="graph"), path)[0]


@cache
def exported() -> tuple[onnx.ModelProto, ModelSpec]:
    """The graph of `network()`; the exporter takes seconds."""
    import tempfile

    path = Path(tempfile.mkdtemp()) / "model.onnx"
    spec = export(network(), path)
    return onnx.load(path), spec


def quantized(folder: Path, weights: Grid | None = None, scheme: object = qdq_signed) -> FakeQuantization:
    """Return `network()` with fake quantization; `weights` replaces the grid of every weight."""
    model, (proto, spec) = network(), exported()
    path = folder / "model.onnx"
    onnx.save(proto, path)
    placement = scheme.grids(path, spec, scheme.Options(float_head=False))  # type: ignore[attr-defined]
    if weights is not None:
        placement = replace(placement, weights=dict.fromkeys(placement.weights, weights))
    return fake_quantized(model, path, placement, calibrate(path, placement, images(3)))


def train(model: DenseModel, steps: int = 2) -> None:
    """Train like Lightning: train mode, AdamW, random targets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        model.train()
        (batch,) = images(1, seed=step)
        model(torch.from_numpy(batch["image"]) * 0.25 + 0.5).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def difference(model: DenseModel, graph: onnx.ModelProto, expected: list[np.ndarray], folder: Path) -> float:
    """Return the largest difference of a graph's logits, over the largest logit; a flipped rounding is 1e-3 or more."""
    run = runner(graph, ["logits"], folder)
    return max(
        float(np.abs(run(b)[0] - y).max() / np.abs(y).max()) for b, y in zip(images(3, 7), expected, strict=True)
    )


def logits(model: DenseModel) -> list[np.ndarray]:
    with torch.no_grad():
        return [model.forward_normalized(torch.from_numpy(b["image"])).logits.numpy() for b in images(3, 7)]


def test_rounding_and_gradients_by_hand() -> None:
    """Step 0.5, levels -128 to 127: 0.6 -> 0.5, 0.75 -> 1.0 (half to even), 100 -> 63.5.

    LSQ: the scale's gradient is round(v) - v inside, -0.2 and 0.5, and the last level outside, 127; times 1 / sqrt(3 * 127),
    times the scale itself, as its logarithm is the parameter.
    """
    quantizer = Quantizer(Scale(np.float32(0.5).reshape(()), np.zeros((), np.int8)), Grid(8, True, True))
    x = torch.tensor([[0.6, 0.75, 100.0]], requires_grad=True)
    y = quantizer(x)
    torch.testing.assert_close(y, torch.tensor([[0.5, 1.0, 63.5]]))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 1.0, 0.0]]))
    expected = (-0.2 + 0.5 + 127) / np.sqrt(3 * 127) * 0.5
    assert quantizer.log_scale.grad is not None
    assert quantizer.log_scale.grad.item() == pytest.approx(expected, rel=1e-5)


def test_a_zero_point_moves_the_levels() -> None:
    """uint8, zero point 10, step 1: -20 -> -10, 3.2 -> 3, 300 -> 245."""
    quantizer = Quantizer(Scale(np.ones((), np.float32), np.array(10, np.uint8)), Grid(8, False, False))
    torch.testing.assert_close(quantizer(torch.tensor([-20.0, 3.2, 300.0])), torch.tensor([-10.0, 3.0, 245.0]))


@pytest.mark.parametrize("scheme", [qdq_signed, qdq])
def test_a_trained_network_leaves_as_the_graph_computes_it(scheme: object, tmp_path: Path) -> None:
    """After training: plain names, every weight of the new graph on its grid, the logits of the Q/DQ graph."""
    names = set(network().state_dict())
    handle = quantized(tmp_path, scheme=scheme)
    assert len(handle.placement.nodes) == 8
    assert not handle.left_out
    assert handle.operators[handle.placement.nodes[2].name].norm == "norms.0"
    assert handle.operators[handle.placement.nodes[3].name].norm == "norms.1"
    train(handle.student)
    expected = logits(handle.student)
    scales = handle.finish()
    assert set(handle.student.state_dict()) == names
    export(handle.student, tmp_path / "trained.onnx")
    graph = insert_qdq(onnx.load(tmp_path / "trained.onnx"), handle.placement, scales)
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert difference(handle.student, graph, expected, tmp_path) < 1e-6


def test_one_scale_per_weight_holds_for_the_folded_weight(tmp_path: Path) -> None:
    """The shared convolution has two folded weights and cannot be on both grids: it stays in float."""
    handle = quantized(tmp_path, Grid(8, True, True, None, 127))
    assert len(handle.left_out) == 2
    assert set(handle.left_out.values()) == {"shared has one scale for its weight and several batch norms"}
    factors = network().stem[1].weight  # type: ignore[index,union-attr]
    train(handle.student)
    torch.testing.assert_close(handle.student.stem[1].weight, factors)  # type: ignore[index,union-attr,operator]
    expected = logits(handle.student)
    scales = handle.finish()
    assert handle.student.stem[1].weight.requires_grad  # type: ignore[index,union-attr,operator]
    export(handle.student, tmp_path / "trained.onnx")
    graph = insert_qdq(onnx.load(tmp_path / "trained.onnx"), handle.placement, scales)
    assert difference(handle.student, graph, expected, tmp_path) < 1e-6


def test_the_first_scales_are_the_calibrated_ones(tmp_path: Path) -> None:
    handle = quantized(tmp_path)
    calibrated = calibrate(tmp_path / "model.onnx", handle.placement, images(3))
    for name, scale in handle.scales().items():
        np.testing.assert_allclose(scale.scale, calibrated[name].scale, rtol=1e-6, err_msg=name)


def test_batch_norms_keep_their_statistics(tmp_path: Path) -> None:
    handle = quantized(tmp_path)
    before = {name: value.clone() for name, value in handle.student.state_dict().items() if "running" in name}
    train(handle.student)
    after = handle.student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not torch.equal(after["stem.1.bias"], network().state_dict()["stem.1.bias"])


def test_a_copy_has_grids_of_its_own(tmp_path: Path) -> None:
    handle = quantized(tmp_path)
    twin = copy.deepcopy(handle.student)
    expected = logits(handle.student)
    train(handle.student)
    assert all(np.array_equal(a, b) for a, b in zip(logits(twin), expected, strict=True))
    assert not np.array_equal(logits(handle.student)[0], expected[0])
    twin.load_state_dict(handle.student.state_dict())
    assert np.array_equal(logits(twin)[0], logits(handle.student)[0])


def test_a_network_in_training_can_be_exported(tmp_path: Path) -> None:
    """With fake quantization inside, edgekd's exporter writes what torch computes: divisions, roundings and products."""
    handle = quantized(tmp_path)
    export(handle.student, tmp_path / "inside.onnx")
    graph = onnx.load(tmp_path / "inside.onnx")
    assert sum(node.op_type == "Round" for node in graph.graph.node) >= len(handle.placement.activations)
    assert difference(handle.student, graph, logits(handle.student), tmp_path) < 1e-6


def test_weights_that_belong_to_no_module_are_refused_when_nothing_is_left(tmp_path: Path) -> None:
    proto, spec = exported()
    path = tmp_path / "model.onnx"
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for one in other.graph.initializer:
        if len(one.dims) > 1:
            one.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(one) + 1, one.name))
    onnx.save(other, path)
    placement = qdq_signed.grids(path, spec, qdq_signed.Options(float_head=False))
    with pytest.raises(UserError, match="none of 8 operators can be fake-quantized, for example .* is not stem.0's"):
        fake_quantized(network(), path, placement, calibrate(path, placement, images(1)))
    with pytest.raises(ArtifactError, match="has no node 'gone'"):
        insert_qdq(proto, replace(placement, nodes=(replace(placement.nodes[0], name="gone"),)), {})


def train_until_killed(scratch: str, weights: str, ema: str, kill_at_load: str, graph: str) -> None:
    """Train the tiny student with fake quantization from a graph and calibrate scales; as `tiny_task.train_until_killed`."""

    def kill(number: int) -> None:
        if number == int(kill_at_load):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    run = tiny_task.job(Path(scratch), tiny_task.Boxes(on_load=kill), float(ema) or None)
    path, placement, batches = Path(graph), *_of_tiny(Path(graph))
    handle = fake_quantized(run.student, path, placement, calibrate(path, placement, batches))
    record = fit(run)["record"]
    scales = {name: torch.from_numpy(np.atleast_1d(one.scale)) for name, one in handle.finish().items()}
    torch.save({"state": run.student.state_dict(), "scales": scales, "record": record}, weights)
    sys.exit(0)


def _of_tiny(graph: Path) -> tuple[Placement, list[dict[str, np.ndarray]]]:
    spec = torch_spec(tiny_task.TinyNet(6, seed=5), "semantic", tuple("abc"), tiny_task.SIZE)
    placement = qdq_signed.grids(graph, spec, qdq_signed.Options(float_head=False))
    return placement, [{"image": np.random.default_rng(0).standard_normal((1, 3, *tiny_task.SIZE)).astype(np.float32)}]


def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Killed in step 5 of 6, checkpoints every second step, averaged: weights and scales are those of a run without a kill."""
    student = tiny_task.TinyNet(6, seed=5).eval()
    graph = tmp_path / "tiny.onnx"
    spec = torch_spec(student, "semantic", tuple("abc"), tiny_task.SIZE)
    export_onnx(student, deployed_spec(spec, student, Export()), Export(), graph)
    at = 4 * tiny_task.BATCH + 1
    for name, kill in (("whole", 0), ("cut", at), ("cut", 0)):
        arguments = (str(tmp_path / name), str(tmp_path / f"{name}.pt"), "0.5", str(kill), str(graph))
        ended = forked(train_until_killed, *arguments)
        assert ended.returncode == (-signal.SIGKILL if kill else 0), ended.stderr
    whole, cut = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("state", "scales"):
        assert set(whole[part]) == set(cut[part])
        assert all(torch.equal(value, cut[part][name]) for name, value in whole[part].items())
    assert [row["step"] for row in cut["record"]] == list(range(1, tiny_task.STEPS + 1))
    moved = [
        name
        for name, scale in calibrate(graph, *_of_tiny(graph)).items()
        if not np.array_equal(whole["scales"][name], np.atleast_1d(scale.scale))
    ]
    assert len(moved) == len(whole["scales"]), "every scale is learned"

"""What a layer's quantization noise comes from: worked out by hand, and planted in a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.layers.costs import Clipping, Costs, groups_of
from edgekd.layers.graphs import layers_of
from edgekd.layers.measure import Subject, Unexplained
from edgekd.layers.model import INPUTS, RANGE, WEIGHTS
from edgekd.quantize.adjust import adjusted
from edgekd.quantize.errors_by_node import named
from edgekd.quantize.grids import Grid
from edgekd.quantize.noise import Noise
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.read_back import read_back
from edgekd.quantize.reference import runner
from edgekd.quantize.schemes import qdq
from edgekd.rewrites.graph import Graph, read_onnx
from tests.small_nets import images, prepared, segmenter

U8 = Grid(8, is_signed=False, is_symmetric=False)


def test_clipping_is_the_cause_if_it_makes_more_noise_than_rounding() -> None:
    one = Clipping()
    scale = Scale(np.float32(1), np.uint8(0))  # 0 to 255
    one.add(np.array([0.5, 10.25, 255.0, 256.0]), U8, scale)
    assert one.clipped == 1  # 256
    assert one.error == pytest.approx(0.25 + 0.0625 + 1)
    assert (one.outside, one.values) == (1, 4)
    assert one.is_cause
    one.add(np.full(4, 0.5), U8, scale)  # each rounds by half a step
    assert not one.is_cause
    shifted = Clipping()
    shifted.add(np.array([-3.0, -2.0, 253.0]), U8, Scale(np.float32(1), np.uint8(2)))  # -2 to 253
    assert (shifted.clipped, shifted.error, shifted.outside) == (1, 1, 1)


def test_a_rounding_that_an_engine_leaves_out_explains_its_error_and_a_fault_does_not() -> None:
    rng = np.random.default_rng(0)
    exact, noise = rng.standard_normal(10_000), 0.1 * rng.standard_normal(10_000)
    graph = exact + noise

    def share(engine: np.ndarray) -> float:
        found = Unexplained()
        found.add(engine, graph, exact)
        return found.share

    assert share(graph) == 0
    assert share(exact) == 0  # an engine that computes in float
    assert share(exact + 0.3 * noise) == 0  # one that rounds less
    fault = 0.05 * rng.standard_normal(10_000)  # a quarter of the power of the graph's own noise
    assert share(graph + fault) == pytest.approx((fault**2).sum() / (graph**2).sum(), rel=0.1)
    assert share(np.full(10_000, np.nan)) == np.inf


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("costs")
    net, spec = segmenter()
    onnx.save(net, folder / "float.onnx")
    calibration = [prepared(spec, image) for image in images(8)]
    options = qdq.Options(float_head=False, weight_bits=8)
    made = qdq.quantize(folder / "float.onnx", spec, calibration, folder, options).model
    back = read_back(made, folder / "float.onnx")
    return Subject(back.model, spec, back.graph, back.is_file, back.placement, back.scales)


def other_scale(subject: Subject, tensor: str, factor: float) -> Subject:
    scales = dict(subject.scales or {})
    scales[tensor] = Scale(scales[tensor].scale * np.float32(factor), scales[tensor].zero_point)
    return replace(subject, scales=scales)


def test_a_range_that_is_too_small_is_the_cause_in_the_layers_that_read_it(subject: Subject) -> None:
    sound = Costs.of(subject, images(2))
    assert set(sound.causes) == {"stem", "block.a", "block.b", "block.add", "head", "up"}
    assert RANGE not in sound.causes.values()
    assert not sound.outside
    small = Costs.of(other_scale(subject, "block.a.relu.out", 1 / 8), images(2))
    assert {name for name, cause in small.causes.items() if cause == RANGE} == {"block.b"}
    assert 0.05 < small.outside["block.b"] < 1
    assert small.alone["block.b"] < sound.alone["block.b"] - 10
    assert small.alone["block.a"] == pytest.approx(sound.alone["block.a"])


def test_coarse_weights_and_coarse_inputs_are_told_apart(subject: Subject) -> None:
    assert Costs.of(other_scale(subject, "block.a.weight", 16), images(2)).causes["block.a"] == WEIGHTS
    assert Costs.of(other_scale(subject, "block.a.relu.out", 16), images(2)).causes["block.b"] == INPUTS


def test_operators_that_move_values_belong_to_the_layer_that_reads_them(tmp_path: Path) -> None:
    net, spec = segmenter()
    nodes = list(net.graph.node)
    place = next(number for number, node in enumerate(nodes) if node.name == "head")
    moved = onnx.helper.make_node("Transpose", [nodes[place].input[0]], ["moved"], name="moved", perm=[0, 1, 2, 3])
    nodes[place].input[0] = "moved"
    nodes.insert(place, moved)
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    layers = {layer.name: layer.nodes for layer in layers_of(named(net))}
    assert layers["head"] == ("head", "moved")
    assert layers["stem"] == ("stem", "stem.relu")
    onnx.save(net, tmp_path / "float.onnx")
    calibration = [prepared(spec, image) for image in images(4)]
    made = qdq.quantize(tmp_path / "float.onnx", spec, calibration, tmp_path, qdq.Options(float_head=False)).model
    back = read_back(made, tmp_path / "float.onnx")
    subject = Subject(back.model, spec, back.graph, back.is_file, back.placement, back.scales)
    placed = {node.name for node in back.placement.nodes}
    assert "moved" in placed  # the quantizer rounds in front of it
    assert groups_of(subject)["head"] == {"head", "moved"}


def test_the_costs_are_those_of_the_engines_own_weights(tmp_path: Path) -> None:
    """`round` puts the float weights on the grid, and the layers are compared with the graph as it was exported."""
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    calibration = [prepared(spec, image) for image in images(8)]
    options = qdq.Options(float_head=False)
    path, _ = adjusted(
        tmp_path / "float.onnx", ["round"], lambda model: qdq.grids(model, spec, options), calibration, tmp_path
    )
    back = read_back(qdq.quantize(path, spec, calibration, tmp_path, options).model, tmp_path / "float.onnx")
    subject = Subject(back.model, spec, back.graph, back.is_file, back.placement, back.scales)
    weights = {one.name: numpy_helper.to_array(one) for one in read_onnx(path).graph.initializer}
    exact = {one.name: numpy_helper.to_array(one) for one in net.graph.initializer}
    graph, moved = Graph(subject.with_weights_only()), False
    for name in ("stem.weight", "block.a.weight", "block.b.weight", "head.weight"):
        scale = np.asarray((subject.scales or {})[name].scale).reshape(-1, 1, 1, 1)
        mine = graph.value(f"{name}_quantized") * scale
        np.testing.assert_allclose(mine, weights[name], atol=1e-6)
        moved |= bool((np.abs(mine - exact[name]) > 0.51 * scale).any())
    assert moved  # not all are the nearest

    whole = insert_qdq(subject.model, back.placement, back.scales, ["block.a"], weights=subject.integers)
    runs = [runner(one, ["logits"], tmp_path) for one in (subject.model, whole)]
    noise = Noise()
    for image in images(2):
        noise.add(*(run(prepared(spec, image))[0] for run in runs))
    assert Costs.of(subject, images(2)).alone["block.a"] == pytest.approx(noise.db, abs=0.01)

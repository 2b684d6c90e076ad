"""Rounding against all choices there are, against ONNX Runtime's convolution, and with the scale that it must keep."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.quantize.grids import Grid
from edgekd.quantize.ranges import calibrate, weight_scale
from edgekd.quantize.reference import runner
from edgekd.quantize.schemes import qdq
from edgekd.quantize.weight_rounding import patches, round_rows, round_weights
from edgekd.rewrites.graph import Graph
from tests.small_nets import images, prepared, segmenter

GRID = Grid(4, True, True, largest=7)


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights in steps (1, 1, 6) without one of the largest magnitude, and the squares of correlated inputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((200, 2)) @ rng.standard_normal((2, 6)) + 0.3 * rng.standard_normal((200, 6))
    return rng.uniform(-6, 6, (1, 1, 6)), (inputs.T @ inputs)[None]


def error(whole: np.ndarray, rows: np.ndarray, squares: np.ndarray) -> float:
    return float((whole - rows)[0, 0] @ squares[0] @ (whole - rows)[0, 0])


def test_it_is_never_worse_than_the_nearest_and_close_to_the_best_of_all_choices() -> None:
    """The best of the 2^6 choices of rounding down or up, by trying all of them."""
    shares = []
    for seed in range(20):
        rows, squares = problem(seed)
        made = round_rows(rows, squares, np.ones((1, 1, 1)), GRID)
        choices = (np.floor(rows) + np.reshape(ups, (1, 1, 6)) for ups in itertools.product((0, 1), repeat=6))
        best = min(error(one, rows, squares) for one in choices)
        nearest = error(np.round(rows), rows, squares)
        found = error(made, rows, squares)
        assert found <= nearest
        assert (made == np.round(made)).all()
        shares.append(((nearest - found) / (nearest - best)) if nearest > best else 1.0)
    assert np.mean(shares) > 0.6


def test_without_correlation_it_is_the_nearest() -> None:
    rows, _ = problem(0)
    assert (round_rows(rows, np.eye(6)[None], np.ones((1, 1, 1)), GRID) == np.round(rows)).all()


def test_the_largest_weight_stays_and_with_it_the_scale() -> None:
    rows, squares = problem(1)
    rows[0, 0, 3] = -7
    made = round_rows(rows, squares, np.ones((1, 1, 1)), GRID)
    assert made[0, 0, 3] == -7
    assert np.abs(made).max() == 7


@pytest.mark.parametrize("group", [1, 4])
def test_the_windows_are_those_that_the_convolution_multiplies(group: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4 // group, 3, 2)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], name="c", group=group, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, (1, 4, 9, 8))],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    image = rng.standard_normal((1, 4, 9, 8)).astype(np.float32)
    (expected,) = runner(model, ["y"], tmp_path)({"x": image})
    found = patches(
        Graph(model), node, image, np.random.default_rng(0)
    )  # all positions: there are fewer than are drawn
    sums = np.einsum("nckl,ockl->no", found, weight) if group == 1 else np.einsum("nckl,ckl->nc", found, weight[:, 0])
    assert len(found) == expected[0, 0].size
    wanted = expected[0].reshape(4, -1).T
    for channel in range(4):
        assert np.sort(sums[:, channel]) == pytest.approx(np.sort(wanted[:, channel]), abs=1e-4)


def test_weights_of_a_network_lie_on_their_grids_and_keep_their_scales(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    options = qdq.Options(float_head=False)
    placement = qdq.grids(tmp_path / "float.onnx", spec, options)
    batches = [prepared(spec, image) for image in images(4)]
    scales = calibrate(tmp_path / "float.onnx", placement, batches)
    made = onnx.ModelProto.FromString(net.SerializeToString())
    assert round_weights(made, placement, scales, batches) == ["stem", "block.a", "block.b", "head"]
    for name, grid in placement.weights.items():
        before, after, step = Graph(net).value(name), Graph(made).value(name), scales[name].scale.reshape(-1, 1, 1, 1)
        assert after / step == pytest.approx(np.round(after / step), abs=1e-3)
        assert np.abs(after - before).max() / step.min() > 0.5  # not all are the nearest
        assert weight_scale(after, grid).scale == pytest.approx(scales[name].scale, rel=1e-6)


def test_the_weight_of_a_constant_node_is_left_alone(tmp_path: Path) -> None:
    net, spec = segmenter()
    weight = next(one for one in net.graph.initializer if one.name == "block.a.weight")
    net.graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))
    net.graph.initializer.remove(weight)
    onnx.save(net, tmp_path / "float.onnx")
    calibration = [prepared(spec, image) for image in images(2)]
    placement = qdq.grids(tmp_path / "float.onnx", spec, qdq.Options(float_head=False))
    scales = calibrate(tmp_path / "float.onnx", placement, calibration)
    assert "block.a" in [one.name for one in placement.nodes]
    assert set(round_weights(net, placement, scales, calibration)) == {"stem", "block.b", "head"}

"""The noise of operators in int8: against formulas, against a graph without optimisation, against another implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
from onnx import TensorProto, helper

from edgekd.core import plugins
from edgekd.quantize.errors_by_node import answers
from edgekd.quantize.macs import macs_by_node
from edgekd.quantize.noise import EQUAL_DB, Noise
from edgekd.quantize.ptq import Batch
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import calibrate
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph, read_onnx
from edgekd.sensitivity.reference import Reference
from tests.small_nets import images, prepared, segmenter
from tests.unit.sensitivity.planted import PAIRS, blown_up, deep_segmenter


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference, list[Batch]]:
    """Return a network with one range blown up, its reference graph and eight inputs."""
    folder = tmp_path_factory.mktemp("reference")
    model, spec = deep_segmenter(seed=3)
    blown_up(model, ("block2.a", "block2.b"), 2.0**6, seed=3)
    path = folder / "model.onnx"
    onnx.save(model, path)
    inputs = [prepared(spec, image) for image in images(8)]
    scheme = plugins.load("quantizers", "qdq")
    placement = scheme.grids(path, spec, scheme.Options(float_head=False))
    return path, Reference(path, spec, placement, calibrate(path, placement, inputs), folder), inputs


def quantized(path: Path, reference: Reference, inputs: list[Batch]) -> onnx.ModelProto:
    """Return the graph with every operator in int8."""
    scheme = plugins.load("quantizers", "qdq")
    placement = scheme.grids(path, reference.spec, scheme.Options(float_head=False))
    return insert_qdq(read_onnx(path), placement, calibrate(path, placement, inputs))


def test_optimised_float_operators_give_what_the_graph_gives_node_by_node(
    network: tuple[Path, Reference, list[Batch]], tmp_path: Path
) -> None:
    path, reference, inputs = network
    as_it_stands = runner(quantized(path, reference, inputs), ["logits"], tmp_path)
    with reference.open(reference.nodes) as session:
        for batch in inputs:
            (expected,) = as_it_stands(batch)
            np.testing.assert_allclose(
                session.infer(dict(batch))["logits"], expected, rtol=0, atol=1e-4 * np.abs(expected).max()
            )


def test_no_operator_in_int8_makes_no_noise_and_each_one_makes_some(
    network: tuple[Path, Reference, list[Batch]],
) -> None:
    _, reference, inputs = network
    noise = reference.noise(inputs)
    assert noise.db(()) == EQUAL_DB
    alone = {name: noise.db((name,)) for name in reference.nodes}
    assert min(alone, key=lambda name: alone[name]) == "block2.b"  # it reads the range that was blown up
    assert alone["block2.b"] < min(value for name, value in alone.items() if name != "block2.b") - 3


def test_accumulated_noise_is_that_of_what_the_next_operator_reads_with_everything_in_int8(
    network: tuple[Path, Reference, list[Batch]], tmp_path: Path
) -> None:
    path, reference, inputs = network
    found = reference.accumulated(inputs)
    assert list(found) == list(reference.nodes)
    # block1.b ends before the addition, which is float: nothing rounds it
    tensors = {"stem": "stem.relu.out", "block1.b": "block1.b.out", "head": "head.out"}
    rounded = ["stem.relu.out_dequantized", "block1.b.out", "head.out"]
    (tmp_path / "float").mkdir()
    exact = runner(read_onnx(path), list(tensors.values()), tmp_path / "float")
    integer = runner(quantized(path, reference, inputs), rounded, tmp_path)
    noises = {name: Noise() for name in tensors}
    for batch in inputs:
        for noise, one, other in zip(noises.values(), exact(batch), integer(batch), strict=True):
            noise.add(one, other)
    assert {name: found[name] for name in tensors} == pytest.approx({n: one.db for n, one in noises.items()}, abs=0.01)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_noise_of_each_operator_alone_agrees_with_onnxsim(seed: int, tmp_path: Path) -> None:
    """onnxsim 0.8 rounds input, weight and output of the operator, this its input and weight.

    So onnxsim finds no less noise; it finds the same where one input makes nearly all of it, and blames the operator before as
    well, which writes that tensor.
    """
    model, spec = deep_segmenter(seed)
    first, second = PAIRS[seed % 3]
    blown_up(model, (first, second), 16.0, seed)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    inputs = [prepared(spec, image) for image in images(8)]
    scheme = plugins.load("quantizers", "qdq")
    placement = scheme.grids(path, spec, scheme.Options(float_head=False, weight_bits=8))
    reference = Reference(path, spec, placement, calibrate(path, placement, inputs), tmp_path)
    noise = reference.noise(inputs)
    ours = {name: noise.db((name,)) for name in reference.nodes}
    groups = {name: [name] for name in reference.nodes}
    batches = [dict(one) for one in inputs]
    report = onnxsim.analyze_activation_sensitivity(onnx.load(path), batches, batches, groups=groups, mode="only")
    theirs = {one.group: one.score for one in report.groups}
    assert all(theirs[name] < ours[name] + 0.1 for name in ours)
    assert min(ours, key=lambda name: ours[name]) == second
    assert ours[second] == pytest.approx(theirs[second], abs=0.2)
    assert {one.group for one in report.groups[:2]} == {first, second}


def test_multiply_adds_by_hand() -> None:
    model, _ = segmenter()
    graph = Graph(model)
    # 32x48: the stem halves both; 3x3 of 3 to 8, two of 8 to 8, 1x1 of 8 to 3
    half = 16 * 24
    assert macs_by_node(graph) == {
        "stem": half * 8 * 3 * 9,
        "block.a": half * 8 * 8 * 9,
        "block.b": half * 8 * 8 * 9,
        "head": half * 3 * 8,
    }


def test_multiply_adds_of_grouped_transposed_and_matrix_operators() -> None:
    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["y"], name="depthwise", group=4, pads=[1] * 4),
        helper.make_node("ConvTranspose", ["y", "up"], ["z"], name="up", strides=[2, 2]),
        helper.make_node("Gemm", ["a", "b"], ["c"], name="gemm", transB=1),
        helper.make_node("MatMul", ["m", "n"], ["o"], name="matmul"),
    ]
    inputs = [value("x", 1, 4, 6, 6), value("depthwise", 4, 1, 3, 3), value("up", 4, 2, 2, 2)]
    inputs += [value("a", 5, 7), value("b", 3, 7), value("m", 2, 5, 7), value("n", 2, 7, 3)]
    outputs = [value("z", 1, 2, 12, 12), value("c", 5, 3), value("o", 2, 5, 3)]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)))
    assert macs_by_node(graph) == {
        "depthwise": 4 * 36 * 9,  # one channel each
        "up": 4 * 36 * 2 * 4,
        "gemm": 5 * 3 * 7,
        "matmul": 2 * 5 * 3 * 7,
    }


def test_noise_is_measured_before_an_argmax() -> None:
    plain, argmax = (Graph(segmenter(has_argmax=has)[0]) for has in (False, True))
    assert answers(plain) == ["logits"]
    assert answers(argmax) == ["up.out"]

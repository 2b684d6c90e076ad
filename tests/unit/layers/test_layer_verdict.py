"""Planted faults are named, by the comparison that they belong to. Random places; a seed is a case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.layers.measure import HERE, Place, Subject
from edgekd.layers.model import BOARD, QUANTIZATION, RANGE, RUNTIME, TAPS, WEIGHTS, LayerErrors
from edgekd.quantize.schemes import qdq
from edgekd.rewrites.graph import SCOPES, Graph
from tests.layer_faults import (
    ENGINE_FAULTS,
    Fused,
    errors_in,
    errors_of,
    place_of,
    saturated,
    set_initializer,
    subject_of,
)
from tests.small_nets import images, prepared, segmenter
from tests.unit.sensitivity.planted import blown_up, deep_segmenter


class Case:
    """A quantized network in a folder, and copies of its file with faults."""

    def __init__(self, folder: Path, net: onnx.ModelProto, **options: Any) -> None:
        self.spec = segmenter()[1]
        self.model, self.images = folder / "float.onnx", images(2, seed=5)
        onnx.save(net, self.model)
        calibration = [prepared(self.spec, image) for image in images(8)]
        self.quantized = qdq.quantize(
            self.model, self.spec, calibration, folder, qdq.Options(float_head=False, **options)
        ).model

    def broken(self, fault: object, seed: int) -> tuple[Path, set[str]]:
        model = onnx.load(self.quantized)
        nodes = fault(model, np.random.default_rng(seed))  # type: ignore[operator]
        path = self.quantized.with_name(f"broken{seed}.onnx")
        onnx.save(model, path)
        return path, nodes

    def errors(self, quantized: Path, engine: Path, board: Path | None = None) -> LayerErrors:
        return errors_of(quantized, self.model, self.spec, engine, self.images, board)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"), segmenter()[0])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network with one scale for a weight tensor, and channels that are 16 times as large between two convolutions."""
    net, _ = deep_segmenter(seed=3)
    blown_up(net, ("block1.a", "block1.b"), 16.0, seed=3)
    return Case(tmp_path_factory.mktemp("noisy"), net, weights="per_tensor")


def test_a_sound_engine_computes_its_graph_in_every_layer(case: Case) -> None:
    found = case.errors(case.quantized, case.quantized)
    assert not [one for one in found.blamed if one.comparison != QUANTIZATION]
    assert [layer.name for layer in found.layers] == ["stem", "block.a", "block.b", "block.add", "head", "up"]
    for layer in found.layers:
        assert layer.engine_own is not None
        assert layer.allowed is not None
        assert layer.engine_own > layer.allowed
    assert LayerErrors.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fault", list(ENGINE_FAULTS))
def test_a_fault_in_the_engines_file_is_the_runtimes(case: Case, fault: str, seed: int) -> None:
    engine, nodes = case.broken(ENGINE_FAULTS[fault], seed)
    found = case.errors(case.quantized, engine)
    assert (found.blamed[0].comparison, {found.blamed[0].layer}) == (RUNTIME, nodes)
    assert found.sentence == found.blamed[0].text


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_range_that_is_too_small_is_quantizations(case: Case, seed: int) -> None:
    quantized, nodes = case.broken(saturated, seed)
    (blamed,) = case.errors(quantized, quantized).blamed
    assert blamed.comparison == QUANTIZATION
    assert blamed.layer in nodes


@pytest.mark.parametrize("fault", list(ENGINE_FAULTS))
def test_a_fault_on_the_board_alone_is_the_boards(case: Case, fault: str) -> None:
    board, nodes = case.broken(ENGINE_FAULTS[fault], 3)
    found = case.errors(case.quantized, case.quantized, board)
    assert (found.blamed[0].comparison, {found.blamed[0].layer}) == (BOARD, nodes)


def test_a_fault_that_tapping_undoes_is_the_fusions(case: Case) -> None:
    engine, _ = case.broken(ENGINE_FAULTS["wrong scale"], 4)
    fused = Place(place_of(engine, case.spec).engine, Fused(case.quantized))
    found = errors_in("fused", subject_of(case.quantized, case.model, case.spec), {HERE: fused}, case.images)
    assert (found.blamed[0].comparison, found.blamed[0].layer) == (TAPS, "")
    assert "fused operator" in found.sentence


def test_a_float_engine_is_held_to_the_exported_graph(case: Case) -> None:
    subject = subject_of(case.quantized, case.model, case.spec)
    found = errors_in("fp32", Subject(subject.model, case.spec), {HERE: place_of(case.model, case.spec)}, case.images)
    assert found.sentence == "Nothing stands out: every layer of the engine computes its graph, up to rounding."
    assert {layer.alone for layer in found.layers} == {None}
    assert found.answer[QUANTIZATION] is None


def test_the_loss_of_a_network_with_a_noisy_layer_is_named_with_its_reason(noisy: Case) -> None:
    found = noisy.errors(noisy.quantized, noisy.quantized)
    (blame,) = found.blamed
    assert blame.comparison == QUANTIZATION
    assert (blame.layer, blame.cause) == ("block1.a", WEIGHTS)
    assert "mostly by rounding its weights" in blame.text


@pytest.mark.parametrize("seed", range(3))
def test_swapped_channels_are_a_fault_in_a_layer_that_quantization_changes_more(noisy: Case, seed: int) -> None:
    def swapped(model: onnx.ModelProto, rng: np.random.Generator) -> set[str]:
        whole = Graph(model).value("block1.a.weight_quantized").copy()
        energy = (whole.astype(float) ** 2).sum(axis=(1, 2, 3))
        first, second = np.argsort(energy)[rng.choice(len(energy) - 2, 2, replace=False)]  # not those blown up
        whole[[first, second]] = whole[[second, first]]
        set_initializer(model, "block1.a.weight_quantized", whole)
        return {"block1.a"}

    engine, nodes = noisy.broken(swapped, seed)
    found = noisy.errors(noisy.quantized, engine)
    assert (found.blamed[0].comparison, {found.blamed[0].layer}) == (RUNTIME, nodes)


def test_a_range_that_is_too_small_stands_before_a_layer_that_loses_more(noisy: Case) -> None:
    def small(model: onnx.ModelProto, rng: np.random.Generator) -> set[str]:
        scale = next(node for node in model.graph.node if node.name == "block2.a.relu.out_QuantizeLinear").input[1]
        set_initializer(model, scale, Graph(model).value(scale) / np.float32(2))
        return {"block2.b"}

    quantized, _ = noisy.broken(small, 0)
    found = noisy.errors(quantized, quantized)
    assert [(one.comparison, one.layer, one.cause) for one in found.blamed] == [
        (QUANTIZATION, "block2.b", RANGE), (QUANTIZATION, "block1.a", WEIGHTS),
    ]  # fmt: skip
    assert "reads a range that is too small" in found.sentence


def test_a_fused_fault_is_found_below_the_noise_of_quantization(noisy: Case) -> None:
    def scaled(model: onnx.ModelProto, rng: np.random.Generator) -> set[str]:
        pair = next(node for node in model.graph.node if node.output[0] == "head.weight_DequantizeLinear_Output")
        set_initializer(model, pair.input[1], Graph(model).value(pair.input[1]) * np.float32(1.15))
        return {"head"}

    engine, _ = noisy.broken(scaled, 0)
    fused = Place(place_of(engine, noisy.spec).engine, Fused(noisy.quantized))
    subject = subject_of(noisy.quantized, noisy.model, noisy.spec)
    found = errors_in("fused", subject, {HERE: fused}, noisy.images)
    assert found.answer[TAPS] > found.answer[QUANTIZATION]  # type: ignore[operator]  # both were measured
    assert found.blamed[0].comparison == TAPS
    sound = errors_in("sound", subject, {HERE: place_of(noisy.quantized, noisy.spec)}, noisy.images)
    assert TAPS not in {one.comparison for one in sound.blamed}


def test_layers_of_one_module_are_numbered(case: Case) -> None:
    net = onnx.load(case.model)
    for node in net.graph.node:
        if node.name in ("block.a", "block.b", "head"):
            scopes = ["", "block" if node.name != "head" else "head", node.name]
            node.metadata_props.add(key=SCOPES, value=str(scopes))
    found = errors_in("x", Subject(net, case.spec), {}, case.images)
    assert [one.title for one in found.layers][1:3] == ["block (Conv) #1", "block (Conv) #2"]


def test_a_layer_in_float_is_marked_also_where_it_reads_a_rounded_tensor(case: Case, tmp_path: Path) -> None:
    calibration = [prepared(case.spec, image) for image in images(4)]
    made = qdq.quantize(case.model, case.spec, calibration, tmp_path, qdq.Options()).model  # with a float head
    subject = subject_of(made, case.model, case.spec)
    found = errors_in("x", subject, {}, case.images)
    assert [one.name for one in found.layers if one.is_float] == ["head"]
    assert "head" in {node.name for node in subject.placement.nodes}  # type: ignore[union-attr]


def test_an_operator_whose_roundings_the_graph_does_not_show_is_not_judged(case: Case) -> None:
    engine, nodes = case.broken(ENGINE_FAULTS["wrong scale"], 0)
    subject = subject_of(case.quantized, case.model, case.spec)
    assert errors_in("x", subject, {HERE: place_of(engine, case.spec)}, case.images).blamed[0].layer in nodes
    found = errors_in(
        "x", replace(subject, left_out=frozenset(nodes)), {HERE: place_of(engine, case.spec)}, case.images
    )
    assert {one.name for one in found.layers if one.engine_own is None} == nodes
    assert RUNTIME not in {one.comparison for one in found.blamed}

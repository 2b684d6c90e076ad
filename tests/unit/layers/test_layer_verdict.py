"""Planted faults are named, by the comparison that they belong to. Random places; a seed is a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.layers.measure import HERE, Place
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS, LayerErrors
from edgekd.quantize.schemes import qdq
from tests.layer_faults import ENGINE_FAULTS, Fused, errors_in, errors_of, place_of, saturated, subject_of
from tests.small_nets import images, prepared, segmenter


class Case:
    """A quantized network in a folder, and copies of its file with faults."""

    def __init__(self, folder: Path) -> None:
        net, self.spec = segmenter()
        self.model, self.images = folder / "float.onnx", images(2, seed=5)
        onnx.save(net, self.model)
        calibration = [prepared(self.spec, image) for image in images(8)]
        options = qdq.Options(float_head=False)
        self.quantized = qdq.quantize(self.model, self.spec, calibration, folder, options).model

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
    return Case(tmp_path_factory.mktemp("case"))


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
    from edgekd.layers.measure import Subject

    found = errors_in("fp32", Subject(subject.model, case.spec), {HERE: place_of(case.model, case.spec)}, case.images)
    assert found.sentence == "Nothing stands out: every layer of the engine computes its graph, up to rounding."
    assert {layer.alone for layer in found.layers} == {None}
    assert found.answer[QUANTIZATION] is None

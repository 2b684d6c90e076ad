"""Cutting the last upsampling off a segmenter's graph: the class map stays, the logits shrink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.board.parity import Comparison
from edgekd.board.postprocess import class_map
from edgekd.board.specs import ModelSpec
from edgekd.executors.local import open_reference
from edgekd.export.upsampling import cut_upsampling
from tests.small_nets import segmenter

SIZE = (32, 48)


def outputs_of(model: onnx.ModelProto, spec: ModelSpec, folder: Path) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    values = np.random.default_rng(0).normal(size=spec.inputs[0].shape).astype(np.float32)
    with open_reference(folder / "model.onnx", spec) as session:
        return {name: array.copy() for name, array in session.infer({"image": values}).items()}


@pytest.mark.parametrize("image_size", [SIZE, (45, 40), (90, 131)])
def test_the_class_map_is_the_same_without_the_upsampling(image_size: tuple[int, int], tmp_path: Path) -> None:
    model, spec = segmenter()
    whole = outputs_of(model, spec, tmp_path)
    small_spec = cut_upsampling(model, spec)
    small = outputs_of(model, small_spec, tmp_path)

    assert whole["logits"].shape == (1, 3, 32, 48)
    assert small["logits"].shape == small_spec.outputs[0].shape == (1, 3, 16, 24)
    assert [node.op_type for node in model.graph.node].count("Resize") == 0
    np.testing.assert_array_equal(class_map(small, small_spec, image_size), class_map(whole, spec, image_size))
    comparison = Comparison()
    comparison.add_results(whole, spec, small, small_spec)
    assert comparison.result().different == 0


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("mode", "nearest"),
        ("mode", "cubic"),
        ("coordinate_transformation_mode", "align_corners"),
        ("exclude_outside", 1),
    ],
)
def test_another_kind_of_resize_stays(attribute: str, value: str | int) -> None:
    model, spec = segmenter()
    node = next(node for node in model.graph.node if node.op_type == "Resize")
    kept = [one for one in node.attribute if one.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
    before = model.SerializeToString()
    assert cut_upsampling(model, spec) is spec
    assert model.SerializeToString() == before


def test_an_upsampling_to_another_size_than_the_input_stays() -> None:
    model, spec = segmenter()
    larger = replace(spec, preprocess=replace(spec.preprocess, size=(64, 96)))
    assert cut_upsampling(model, larger) is larger


@pytest.mark.parametrize(("scale", "is_cut"), [(2.0, True), (2.04, False)])
def test_an_upsampling_by_another_ratio_than_the_sizes_stays(scale: float, is_cut: bool) -> None:
    model, spec = segmenter()
    scales = next(one for one in model.graph.initializer if one.name == "scales")
    scales.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales"))
    assert (cut_upsampling(model, spec) is not spec) == is_cut


def test_logits_that_the_graph_reads_itself_stay() -> None:
    model, spec = segmenter()
    model.graph.node.append(onnx.helper.make_node("Relu", ["logits"], ["positive"]))
    assert cut_upsampling(model, spec) is spec

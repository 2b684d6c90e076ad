"""Adjustments by name, in order, in front of every quantizer; the stage records what they changed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.core.recipe import Recipe
from edgekd.errors import DataError
from edgekd.quantize.adjust import adjusted
from edgekd.quantize.reference import runner
from edgekd.quantize.schemes import nncf, qdq, qdq_signed, vendor
from edgekd.rewrites.graph import Graph, read_onnx
from tests.small_nets import images, prepared, segmenter
from tests.unit.core.small_recipe import SMALL

QUANTIZERS = [pytest.param(one, id=one.__name__.rpartition(".")[2]) for one in (qdq, qdq_signed, nncf, vendor)]


def made(module: ModuleType, folder: Path, *names: str) -> tuple[Path, dict[str, int]]:
    """Return the small net after adjustments for a quantizer, all of its convolutions quantized."""
    net, spec = segmenter()
    weights = {one.name: one for one in net.graph.initializer}
    value = numpy_helper.to_array(weights["block.a.weight"]).copy()
    value[3] *= 16  # block.b follows it behind a ReLU
    weights["block.a.weight"].CopyFrom(numpy_helper.from_array(value, "block.a.weight"))
    onnx.save(net, folder / "float.onnx")
    options = module.Options() if module is vendor else module.Options(float_head=False)
    batches = [prepared(spec, image) for image in images(4)]
    return adjusted(folder / "float.onnx", names, lambda model: module.grids(model, spec, options), batches, folder)


@pytest.mark.parametrize("module", QUANTIZERS)
def test_every_quantizers_placement_is_adjusted(module: ModuleType, tmp_path: Path) -> None:
    model, changed = made(module, tmp_path, "equalize", "round", "bias")
    assert changed == {"equalize": 2, "round": 4, "bias": 4}
    onnx.checker.check_model(onnx.load(model))
    run = [runner(read_onnx(path), ["logits"], tmp_path) for path in (tmp_path / "float.onnx", model)]
    image = prepared(segmenter()[1], images(1, seed=9)[0])
    before, after = (one(image)[0] for one in run)
    assert 0 < np.abs(before - after).max() < 0.1 * np.abs(before).max()  # rounded to 7 or 8 bits


def test_they_run_in_the_order_that_is_given(tmp_path: Path) -> None:
    model, changed = made(qdq, tmp_path, "bias", "equalize")
    assert list(changed) == ["bias", "equalize"]
    ranges = np.abs(Graph(read_onnx(model)).value("block.a.weight")).reshape(8, -1).max(axis=1)
    assert ranges.max() / ranges.min() < 16


def test_without_images_only_equalization_runs(tmp_path: Path) -> None:
    onnx.save(segmenter()[0], tmp_path / "float.onnx")
    place = lambda model: qdq.grids(model, segmenter()[1], qdq.Options())  # noqa: E731
    assert adjusted(tmp_path / "float.onnx", ["equalize"], place, [], tmp_path)[1].keys() == {"equalize"}
    with pytest.raises(DataError, match="calibration set is empty"):
        adjusted(tmp_path / "float.onnx", ["bias"], place, [], tmp_path)


def test_a_recipe_names_them_for_each_variant_and_the_stage_sees_its_own() -> None:
    variants = {"round": {"adjust": ["round", "bias"]}}
    recipe = Recipe.model_validate({**SMALL, "quantize": {"adjust": ["equalize"], "variants": variants}})
    assert recipe.only("quantize:ptq/qdq").quantize.adjust == ("equalize",)
    assert recipe.only("quantize:round/qdq").quantize.adjust == ("round", "bias")
    with pytest.raises(ValueError, match="equalize_relu6"):
        Recipe.model_validate({**SMALL, "quantize": {"adjust": ["smooth"]}})

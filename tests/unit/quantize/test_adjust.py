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
from edgekd.targets.openvino.runtime import read_model
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


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("module", QUANTIZERS[:3])
def test_a_toolchain_keeps_the_rounded_weights(module: ModuleType, weights: str, bits: int, tmp_path: Path) -> None:
    """The integers times the scale of what the toolchain writes are the rounded float weights, to float32.

    But for the largest of each channel with NNCF's 7 bits, which lies 63.5 steps from 0.
    """
    given = {} if module is qdq_signed else {"weight_bits": bits}
    options = module.Options(float_head=False, weights=weights, **given)
    net, spec = segmenter()
    onnx.save(net, tmp_path / "float.onnx")
    batches = [prepared(spec, image) for image in images(4)]
    place = lambda model: module.grids(model, spec, options)  # noqa: E731
    rounded, _ = adjusted(tmp_path / "float.onnx", ["round"], place, batches, tmp_path)
    wanted = Graph(read_onnx(rounded))
    made = module.quantize(rounded, spec, batches, tmp_path, options).model
    found = _weights_of_ir(made) if made.suffix == ".xml" else _weights_of_onnx(made)
    assert len(found) == 4
    grid = place(rounded).weights["stem.weight"]
    for name, value in found.items():
        expected = wanted.value(name)
        rows = np.abs(expected).reshape(len(expected), -1).max(axis=1).reshape(-1, 1, 1, 1)
        top = np.abs(expected) == (rows if weights == "per_channel" else np.abs(expected).max())
        half = 0.0 if grid.reach is None else 0.51 / grid.reach * float(np.abs(expected).max())
        assert value[~top] == pytest.approx(expected[~top], abs=1e-5), name
        assert value[top] == pytest.approx(expected[top], abs=half + 1e-5), name


def _weights_of_onnx(path: Path) -> dict[str, np.ndarray]:
    """Return the dequantized weights of a Q/DQ file by name, computed by ONNX Runtime from the file's own nodes."""
    model = read_onnx(path)
    names = [f"{name}.weight" for name in ("stem", "block.a", "block.b", "head")]
    tensors = [
        next(n.input[1] for n in model.graph.node if n.op_type == "Conv" and name in n.input[1]) for name in names
    ]
    values = runner(model, tensors, path.parent)(prepared(segmenter()[1], images(1)[0]))
    return dict(zip(names, values, strict=True))


def _weights_of_ir(path: Path) -> dict[str, np.ndarray]:
    """Return the dequantized weights of an IR, in graph order the four convolutions."""
    names = [f"{name}.weight" for name in ("stem", "block.a", "block.b", "head")]
    products = [
        op
        for op in read_model(path).get_ordered_ops()
        if op.get_type_name() == "Multiply" and op.input_value(0).get_node().get_type_name() == "Convert"
    ]
    values = [
        op.input_value(0).get_node().input_value(0).get_node().get_data().astype(np.float32)
        * op.input_value(1).get_node().get_data()
        for op in products
    ]
    return dict(zip(names, values, strict=True))


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
    # Where it names none, the quantizer's own: `docs/results/quantization.md` has the study that chose `round` for `qdq`.
    default = Recipe.model_validate(SMALL)
    chosen = {
        name: default.only(f"quantize:ptq/{name}").quantize.adjust for name in ("qdq", "qdq_signed", "nncf", "vendor")
    }
    assert chosen == {"qdq": ("round",), "qdq_signed": (), "nncf": (), "vendor": ()}
    none = Recipe.model_validate({**SMALL, "quantize": {"adjust": []}})
    assert none.only("quantize:ptq/qdq").quantize.adjust == ()
    with pytest.raises(ValueError, match="equalize_relu6"):
        Recipe.model_validate({**SMALL, "quantize": {"adjust": ["smooth"]}})

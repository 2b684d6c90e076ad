"""A mixed engine of QAT: operators in int8 have the learned ranges, and the drop is from the deployed student's float network."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.board.specs import ModelSpec
from edgekd.core.artifact import Artifact, StageFacts, StageResult, publish
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.errors import GateError
from edgekd.planning import plan
from edgekd.quantize.place import options_of
from edgekd.quantize.ranges import Scale, calibrate, save_scales
from edgekd.quantize.schemes import qdq
from edgekd.quantize.stage import Prepared
from edgekd.rewrites.graph import read_graph
from edgekd.sensitivity import mixed, stage
from edgekd.sensitivity.scoring import SelectionImages
from tests.unit.core.small_recipe import small_recipe
from tests.unit.sensitivity.planted import deep_segmenter
from tests.unit.sensitivity.planted_run import exported, layers_of, planted_recipe

COARSE = "block1.b"  # the operator whose learned input range is much too wide, so that it loses in int8
ENGINE = {"target": "onnxruntime", "precision": "mixed", "student": "qat"}


def recipe_of(folder: Path, model: onnx.ModelProto, spec: ModelSpec) -> Recipe:
    """Return a recipe whose only engine is the mixed one of QAT; the float network of `model` has mIoU 1."""
    recipe = planted_recipe(folder, model, spec)
    (engine,) = recipe.engines
    return recipe.model_copy(update={"engines": (engine.model_copy(update={"student": "qat"}),)})


def coarse_scales(recipe: Recipe, export: Artifact) -> dict[str, Scale]:
    """Return calibrated scales, that of one operator's input 256 times as large."""
    options = options_of(recipe.quantize, "qdq")
    placement = qdq.grids(export.file("model.onnx"), export.spec, options)
    images = SelectionImages.dataset_of(recipe)
    scales = calibrate(export.file("model.onnx"), placement, Prepared(images, range(8), export.spec))
    (coarse,) = (node for node in placement.nodes if node.name == COARSE)
    (tensor,) = coarse.activations
    return scales | {tensor: replace(scales[tensor], scale=scales[tensor].scale * np.float32(256))}


def trained(folder: Path, recipe: Recipe, scales: dict[str, Scale], imitated: str = "qdq") -> Artifact:
    """Return an artifact of stage `qat` with these scales."""
    work = folder / "work-qat"
    work.mkdir()
    save_scales(scales, work / "scales.json")
    options = asdict(options_of(recipe.quantize, "qdq"))
    facts: StageFacts = {"kind": "checkpoint", "stage": "qat", "key": "k"}
    details = {"imitated": {"quantizer": imitated, "options": json.loads(json.dumps(options))}}
    return publish(work, folder / "qat", facts, StageResult(None, details))


def ranked(folder: Path, recipe: Recipe, inputs: dict[str, Artifact]) -> Artifact:
    """Return the artifact of the sensitivity stage with these inputs."""
    work = folder / "work-sensitivity"
    work.mkdir()
    result = stage.run(StageJob(recipe, inputs, work, "qdq"))
    facts: StageFacts = {"kind": "sensitivity", "stage": "sensitivity/qdq-ptq-qat", "key": "k"}
    return publish(work, folder / "sensitivity", facts, result)


def test_the_learned_ranges_are_in_the_trials_and_in_the_result(tmp_path: Path) -> None:
    model, spec = deep_segmenter(1)
    recipe = recipe_of(tmp_path, model, spec)
    export = exported(tmp_path, model, spec)
    scales = coarse_scales(recipe, export)
    inputs = {"export": export, "qat": trained(tmp_path, recipe, scales)}
    sensitivity = ranked(tmp_path, recipe, inputs)
    layers = layers_of(sensitivity)
    assert layers["drop_all_int8"] > 0.05  # calibrated ranges lose less than that, see below
    assert COARSE in layers["floats"]
    out = tmp_path / "mixed"
    out.mkdir()
    made = mixed.run(StageJob(recipe, {"sensitivity": sensitivity, **inputs}, out, recipe.engines[0].id)).details
    assert COARSE in made["budget"]["floats"]
    assert made["budget"]["drop"] <= 0.05
    assert made["quantizer"]["ranges"]["not_taken"] == []
    graph = read_graph(out / "model.onnx")
    pairs = {n.input[0]: graph.value(n.input[1]) for n in graph.nodes if n.op_type == "QuantizeLinear"}
    taken = set(pairs) & set(scales)
    assert len(taken) > 2
    assert all(np.array_equal(pairs[name], scales[name].scale) for name in taken)


def test_ranges_of_another_quantizer_are_not_taken(tmp_path: Path) -> None:
    model, spec = deep_segmenter(1)
    recipe = recipe_of(tmp_path, model, spec)
    export = exported(tmp_path, model, spec)
    inputs = {"export": export, "qat": trained(tmp_path, recipe, coarse_scales(recipe, export), "nncf")}
    layers = layers_of(ranked(tmp_path, recipe, inputs))
    assert layers["drop_all_int8"] <= 0.05
    assert layers["floats"] == []


def test_the_drop_is_from_the_float_network_of_the_deployed_student(tmp_path: Path) -> None:
    """The student's own float network answers another class everywhere; against itself it would lose nothing."""
    model, spec = deep_segmenter(1)
    recipe = recipe_of(tmp_path, model, spec)
    export = exported(tmp_path, model, spec)
    worse = onnx.ModelProto.FromString(model.SerializeToString())
    (bias,) = (one for one in worse.graph.initializer if one.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([1e3, 0, 0], np.float32), "head.bias"))
    folder = tmp_path / "worse"
    folder.mkdir()
    own = exported(folder, worse, spec)
    words = "miou drops by .* points with every layer in float, .*: the further training lowered the score"
    with pytest.raises(GateError, match=words):
        ranked(tmp_path, recipe, {"export-qat": own, "export": export})


def test_the_stages_of_a_mixed_engine_of_qat_read_its_ranges_and_the_deployed_network(tmp_path: Path) -> None:
    recipe = small_recipe(
        tmp_path,
        "qat={train: {steps: 5}}",
        "quantize.budget.max_drop=0.01",
        engines=[{**ENGINE}, {**ENGINE, "student": "deployed"}, {**ENGINE, "student": "control"}],
    )
    inputs = {one.name: one.inputs for one in plan(recipe)}
    assert inputs["sensitivity/qdq-ptq-qat"] == ("export-qat", "qat", "export", "data")
    assert inputs["sensitivity/qdq-ptq-control"] == ("export-control", "export", "data")
    assert inputs["sensitivity/qdq-ptq"] == ("export", "data")
    assert inputs["mixed/onnxruntime-mixed-qat"] == ("sensitivity/qdq-ptq-qat", "export-qat", "qat", "data")
    assert inputs["mixed/onnxruntime-mixed"] == ("sensitivity/qdq-ptq", "export", "data")

"""Mixed engines on planted outliers: the engine holds the budget, and only the planted layers and what feeds them are in float.

benchmarks/budget_search.py has ten such cases, and the cheapest choice of each by trying all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from onnx import helper

from edgekd.core.plugin_options import PluginOptions
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob
from edgekd.errors import GateError, RecipeError
from edgekd.pipeline.checks import check_options
from edgekd.planning import plan
from edgekd.quantize.ptq import float_nodes
from edgekd.rewrites.graph import Graph
from edgekd.sensitivity.mixed import EngineTrials, between, feeders
from edgekd.sensitivity.stage import reference_of
from tests.small_nets import segmenter
from tests.unit.core.small_recipe import small_recipe
from tests.unit.sensitivity.planted import PAIRS, blown_up, deep_segmenter
from tests.unit.sensitivity.planted_run import budgeted, exported, layers_of, planted_recipe, ranked

QUANTIZERS = {"onnxruntime": "qdq", "openvino": "nncf"}


@pytest.mark.parametrize(("target", "seed"), [("onnxruntime", 1), ("onnxruntime", 5), ("openvino", 3)])
def test_the_engine_holds_the_budget_with_the_planted_layers_in_float(
    target: str, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model, spec = deep_segmenter(seed)
    pair = PAIRS[seed % 3]
    blown_up(model, pair, 2.0**8, seed)
    recipe = planted_recipe(tmp_path, model, spec, {"target": target, "precision": "mixed"})
    export = exported(tmp_path, model, spec)
    sensitivity = ranked(tmp_path, recipe, export, QUANTIZERS[target])
    layers = layers_of(sensitivity)
    assert layers["score"] == 1  # float labelled the images
    assert layers["drop_all_int8"] > 0.05 >= layers["drop"]
    worst = min(layers["layers"], key=lambda layer: layer["rank"])
    assert worst["name"] == pair[1]
    assert worst["alone_db"] == min(layer["alone_db"] for layer in layers["layers"])
    assert layers["floats"] == [pair[1]]
    found = budgeted(tmp_path, recipe, export, sensitivity)
    assert found["drop"] <= 0.05
    drop = f"{100 * layers['drop_all_int8']:.2f} points mIoU"
    assert f"Q/DQ graph: loses {drop} with 0 of {len(layers['layers'])} layers in float" in caplog.messages
    words = rf"{target}-mixed: (loses|gains) \d+\.\d+ points mIoU with \d of \d+ layers in float"
    assert any(re.fullmatch(words, line) for line in caplog.messages)
    assert {pair[1]} <= set(found["floats"]) <= set(pair)
    macs = {layer["name"]: layer["macs_share"] for layer in layers["layers"]}
    assert found["float_macs_share"] == pytest.approx(sum(macs[name] for name in found["floats"]))


def test_a_budget_that_no_choice_holds_ends_in_a_gate(tmp_path: Path) -> None:
    model, spec = deep_segmenter(2)
    recipe = planted_recipe(tmp_path, model, spec)
    export = exported(tmp_path, model, spec)
    found = layers_of(ranked(tmp_path, recipe, export, "qdq")) | {"score": 1.2}  # more than any network reaches
    (tmp_path / "trials").mkdir()
    job = StageJob(recipe, {"export": export}, tmp_path)
    trials = EngineTrials(job, recipe.engines[0], found, tmp_path / "trials")
    with pytest.raises(
        GateError, match=r"miou of engine onnxruntime-mixed drops by 2.* points with every layer in float"
    ):
        trials.search(())


def test_an_operator_that_a_toolchain_merges_is_kept_by_the_name_that_it_had() -> None:
    # ONNX Runtime makes MatMul "proj" and Add "bias" one Gemm before it quantizes.
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="proj/MatMulAddFusion"),
        helper.make_node("MatMul", ["y", "v"], ["z"], name="proj2"),
    ]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "net", [], [])))
    assert float_nodes(graph, ["proj"], keep_head=False) == ["proj/MatMulAddFusion"]
    assert float_nodes(graph, ["proj2"], keep_head=False) == ["proj2"]


def test_feeders_are_the_operators_with_weights_before_and_between_is_what_lies_on_the_way() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="a"),
        helper.make_node("Relu", ["a"], ["ar"], name="a.relu"),
        helper.make_node("Conv", ["x", "w"], ["b"], name="b"),
        helper.make_node("Add", ["ar", "b"], ["sum"], name="add"),
        helper.make_node("Conv", ["sum", "w"], ["c"], name="c"),
        helper.make_node("Relu", ["c"], ["cr"], name="c.relu"),
    ]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "net", [], [])))
    assert set(feeders(graph, ["c"])) == {"a", "b"}
    assert between(graph, ["c"]) == ["add"]  # no quantizer rounds at a ReLU that follows a float operator
    assert feeders(graph, ["a"]) == between(graph, ["a"]) == []


def mixed(folder: Path, *engines: dict[str, str]) -> Recipe:
    return small_recipe(folder, "quantize.budget.max_drop=0.01", engines=list(engines))


def test_a_mixed_engine_is_compiled_from_the_model_that_held_the_budget(tmp_path: Path) -> None:
    recipe = mixed(
        tmp_path,
        {"target": "onnxruntime", "precision": "int8"},
        {"target": "onnxruntime", "precision": "mixed"},
        {"target": "onnxruntime", "precision": "mixed", "id": "second"},
    )
    stages = {stage.name: stage for stage in plan(recipe)}
    assert stages["engine/onnxruntime-mixed"].inputs[0] == "mixed/onnxruntime-mixed"
    assert stages["mixed/second"].inputs[0] == "sensitivity/qdq-ptq"
    assert sum(stage.kind == "sensitivity" for stage in stages.values()) == 1
    assert "quantize/qdq-ptq" in stages  # of the int8 engine, as without a mixed one
    assert "evaluate/onnxruntime-mixed" in stages


def test_the_budget_is_in_the_keys_of_its_own_stages(tmp_path: Path) -> None:
    engine = {"target": "onnxruntime", "precision": "mixed"}
    stages = {stage.name: stage for stage in plan(mixed(tmp_path, engine))}
    for name in ("sensitivity/qdq-ptq", "mixed/onnxruntime-mixed"):
        config = stages[name]._config(mixed(tmp_path, engine))
        assert config["quantize"]["budget"]["max_drop"] == 0.01
        assert "val" not in config["data"]
        assert "pictures" not in config["evaluate"]


def test_the_reference_graph_has_the_ranges_of_the_quantizers_options(tmp_path: Path) -> None:
    model, spec = segmenter()
    recipe = planted_recipe(tmp_path, model, spec)
    options = {"qdq": PluginOptions({"calibration": "mean"})}
    export = exported(tmp_path, model, spec)
    scales = []
    for settings in (recipe.quantize, recipe.quantize.model_copy(update={"options": options})):
        asked = recipe.model_copy(update={"quantize": settings})
        scales.append(reference_of(asked, export, "qdq", tmp_path)._scales)
    extremes, means = scales
    assert all(means[name].scale < one.scale for name, one in extremes.items() if not name.endswith("weight"))


def test_an_unknown_ranking_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "quantize.budget.max_drop=0.01", "quantize.budget.rank=alone_sqrn")
    with pytest.raises(Exception, match="'alone_sqrn'; did you mean 'alone_sqnr'"):
        check_options(recipe)


def test_the_metric_of_a_budget_is_one_of_the_tasks_first_two(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected miou or boundary_iou for task 'semantic', got 'map'"):
        small_recipe(tmp_path, "quantize.budget.max_drop=0.01", "quantize.budget.metric=map")


def test_every_ranking_puts_a_single_bad_layer_first(tmp_path: Path) -> None:
    model, spec = deep_segmenter(1)
    blown_up(model, PAIRS[1], 2.0**8, 1)
    export = exported(tmp_path, model, spec)
    for rank in ("alone_sqnr", "left_float_sqnr", "left_float_metric"):
        folder = tmp_path / rank
        folder.mkdir()
        recipe = planted_recipe(folder, model, spec)
        assert recipe.quantize.budget is not None
        budget = recipe.quantize.budget.model_copy(update={"rank": rank})
        ranked_by = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"budget": budget})})
        layers = layers_of(ranked(folder, ranked_by, export, "qdq"))["layers"]
        assert min(layers, key=lambda layer: layer["rank"])["name"] == PAIRS[1][1], rank

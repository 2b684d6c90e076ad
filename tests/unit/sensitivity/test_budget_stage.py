"""The stage `budget`: on which images it scores, and which engines decide for which target."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.board.precision import Precision
from edgekd.core.recipe import Engine, QuantizeVariant
from edgekd.core.stage import StageJob
from edgekd.errors import TargetError
from edgekd.planning import plan
from edgekd.quantize.stage import calibration_indices
from edgekd.report.budgets import int8_budget_gates
from edgekd.sensitivity import budget
from edgekd.sensitivity.budget import by_target
from edgekd.sensitivity.scoring import SelectionImages
from tests.small_nets import segmenter
from tests.unit.core.small_recipe import small_recipe
from tests.unit.sensitivity.planted_run import planted_recipe

INT8 = {"target": "onnxruntime", "precision": "int8"}


def engines(*ids: str) -> list[Engine]:
    """Return engines of the targets before the `-`, on the boards behind the `@`."""
    found = []
    for one in ids:
        name, _, board = one.partition("@")
        target, precision = name.split("-")
        engine = Engine(id=one, target="onnxruntime", precision=Precision(precision), board=board or "local")
        found.append(engine.model_copy(update={"target": target}))
    return found


@pytest.mark.parametrize(
    ("drops", "reasons", "states"),
    [
        ({"a-int8": 0.004, "b-int8": 0.003}, {}, ["held", "held"]),
        ({"a-int8": 0.004, "b-int8": 0.02}, {}, ["held", "missed"]),  # one target that holds it is not enough
        ({"a-int8": 0.004, "b-int8": 0.02, "b-mixed": 0.005}, {}, ["held", "held"]),  # one variant of a target is
        ({"a-int8": 0.004, "a-int8@pi": 0.006}, {}, ["held", "missed"]),  # another board
        ({"a-int8": 0.004}, {"b-int8": "needs an NPU"}, ["held", "not here"]),
        ({"a-int8": 0.006, "b-mixed": 0.004}, {"b-int8": "needs an NPU"}, ["missed", "held"]),
        ({"a-int8": 0.004, "b-int8": None}, {}, ["held", "missed"]),  # it failed: PTQ gave no engine that holds it
        ({"a-int8": 0.004, "a-mixed": None}, {}, ["held"]),
    ],
)
def test_every_target_needs_one_variant_that_holds_the_budget(
    drops: dict[str, float | None], reasons: dict[str, str], states: list[str]
) -> None:
    scored = {name: drop for name, drop in drops.items() if drop is not None}
    found = by_target(engines(*sorted({*drops, *reasons})), scored, reasons, 0.005, "miou")
    assert [one.state for one in found] == states


def test_the_words_name_variants_amounts_and_what_was_not_scored() -> None:
    asked = engines("a-int8", "a-mixed", "b-int8", "b-fp16", "c-int8@pi", "d-int8", "e-int8", "d-mixed")
    drops = {"a-int8": 0.012, "a-mixed": 0.002, "b-int8": 0.012, "b-fp16": 0.00502, "d-int8": -0.001}
    found = by_target(asked, drops, {"c-int8@pi": "no NPU", "d-mixed": "no VNNI"}, 0.005, "map_75")
    assert [one.text for one in found] == [
        "a holds the budget: a-mixed loses 0.20 points AP75, limit 0.50",
        "b misses the budget by 0.002 points AP75: b-fp16 loses 0.50, b-int8 loses 1.20, limit 0.50",
        "c on pi does not count: c-int8@pi (no NPU)",
        "d holds the budget: d-int8 gains 0.10 points AP75, limit 0.50; not here: d-mixed (no VNNI)",
        "e misses the budget: e-int8 failed, limit 0.50",
    ]


def test_the_images_are_those_that_no_variant_is_calibrated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    recipe = planted_recipe(tmp_path, *segmenter(), INT8, {**INT8, "id": "more"})
    quantize = recipe.quantize.model_copy(update={"variants": {"more": QuantizeVariant(images=30)}})
    first, second = recipe.engines
    more = second.model_copy(update={"variant": "more"})
    recipe = recipe.model_copy(update={"quantize": quantize, "engines": (first, more)})
    scores = {"export": 0.9, "engine/onnxruntime-int8": 0.8, "engine/more": 0.88}
    inputs: dict[str, Any] = {name: SimpleNamespace(kind="onnx", score=score) for name, score in scores.items()}
    monkeypatch.setattr(SelectionImages, "score_of", lambda images, artifact: artifact.score)
    found = budget.run(StageJob(recipe, inputs, tmp_path, "budget")).details
    assert found["drops"] == pytest.approx({"onnxruntime-int8": 0.1, "more": 0.02})
    assert found["is_met"]  # by the best of the target's variants: 0.05
    dataset = SelectionImages.dataset_of(recipe)
    calibrated = {dataset.name(index) for index in calibration_indices(len(dataset), 30, recipe.seed)}
    assert not calibrated & set(found["selection"]["images"])
    assert len(found["selection"]["images"]) == len(dataset) - 30
    del inputs["engine/more"]  # it failed: nothing was calibrated on its images
    only = budget.run(StageJob(recipe, inputs, tmp_path, "budget")).details
    assert not only["is_met"]
    assert len(only["selection"]["images"]) == 24
    words = "onnxruntime misses the budget by 5.00 points mIoU: onnxruntime-int8 loses 10.00, more failed, limit 5.00"
    assert f"budget: {words}" in caplog.messages
    assert only["text"] == f"{words}; on 24 selection images"
    (gate,) = int8_budget_gates({"budget": SimpleNamespace(details=only)})  # type: ignore[dict-item]
    assert (gate.name, gate.passed, gate.text) == ("int8 budget of onnxruntime", False, words)


def test_without_an_engine_that_runs_here_nothing_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = planted_recipe(tmp_path, *segmenter(), INT8)
    inputs: dict[str, Any] = {
        name: SimpleNamespace(kind="onnx", score=1.0) for name in ("export", "engine/onnxruntime-int8")
    }
    monkeypatch.setattr(SelectionImages, "score_of", lambda images, artifact: artifact.score)
    monkeypatch.setattr(budget, "why_not_here", lambda engine: "needs an NPU")
    with pytest.raises(TargetError, match=r"needs an int8 engine that runs here \(onnxruntime-int8 \(needs an NPU\)\)"):
        budget.run(StageJob(recipe, inputs, tmp_path, "budget"))


def test_an_engine_that_runs_here_from_now_on_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs here is in the key: a board that got its runtime decides with the others."""
    recipe = small_recipe(tmp_path, "qat={train: {steps: 5}, when: over_budget}", "quantize.budget={}")
    stage = next(one for one in plan(recipe) if one.name == "budget")
    assert stage._external_state(recipe) == {"openvino-int8": ""}  # fp32 engines and those of QAT are not asked
    monkeypatch.setattr(budget, "why_not_there", lambda asked: {one.id: "no runtime" for one in asked})
    assert stage._external_state(recipe) == {"openvino-int8": "no runtime"}

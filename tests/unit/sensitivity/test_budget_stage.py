"""The stage `budget`: on which images it scores, and which engine decides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.core.recipe import QuantizeVariant
from edgekd.core.stage import StageJob
from edgekd.quantize.stage import calibration_indices
from edgekd.sensitivity import budget
from edgekd.sensitivity.scoring import SelectionImages
from tests.small_nets import segmenter
from tests.unit.sensitivity.planted_run import planted_recipe


def test_the_images_are_those_that_no_variant_is_calibrated_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = {"target": "onnxruntime", "precision": "int8"}
    recipe = planted_recipe(tmp_path, *segmenter(), engine, {**engine, "id": "more"})
    quantize = recipe.quantize.model_copy(update={"variants": {"more": QuantizeVariant(images=30)}})
    first, second = recipe.engines
    more = second.model_copy(update={"variant": "more"})
    recipe = recipe.model_copy(update={"quantize": quantize, "engines": (first, more)})
    scores = {"export": 0.9, "engine/onnxruntime-int8": 0.8, "engine/more": 0.88}
    inputs: dict[str, Any] = {name: SimpleNamespace(kind="onnx", score=score) for name, score in scores.items()}
    monkeypatch.setattr(budget, "_score", lambda images, artifact: artifact.score)
    monkeypatch.setattr(budget, "why_not_here", lambda engine: "")
    found = budget.run(StageJob(recipe, inputs, tmp_path, "budget")).details
    assert found["drops"] == pytest.approx({"onnxruntime-int8": 0.1, "more": 0.02})
    assert found["is_met"]  # by the best of them: 0.05
    dataset = SelectionImages.dataset_of(recipe)
    calibrated = {dataset.name(index) for index in calibration_indices(len(dataset), 30, recipe.seed)}
    assert not calibrated & set(found["selection"]["images"])
    assert len(found["selection"]["images"]) == len(dataset) - 30
    del inputs["engine/more"]  # it failed: nothing was calibrated on its images
    only = budget.run(StageJob(recipe, inputs, tmp_path, "budget")).details
    assert not only["is_met"]
    assert len(only["selection"]["images"]) == 24

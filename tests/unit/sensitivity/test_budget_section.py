"""The recipe section `quantize.budget`: what it asks for, and that it changes no artifact that does not read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import DataError, RecipeError
from edgekd.planning import plan
from edgekd.quantize.stage import calibration_indices, selection_indices
from tests.unit.core.small_recipe import small_recipe

MIXED = {"engines": [{"target": "onnxruntime", "precision": "mixed"}]}


def test_a_budget_is_in_the_key_of_no_stage_without_a_mixed_engine(tmp_path: Path) -> None:
    plain, limited = small_recipe(tmp_path), small_recipe(tmp_path, "quantize.budget.max_drop=0.01")
    assert limited.quantize.budget is not None
    for stage, same in zip(plan(plain), plan(limited), strict=True):
        assert stage._config(plain) == same._config(limited), stage.name
        # as in the keys of artifacts that were made before there was a budget
        assert "budget" not in (stage._config(plain).get("quantize") or {}), stage.name


def test_a_mixed_engine_needs_a_budget(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"engines\.onnxruntime-mixed: precision mixed needs `quantize\.budget`"):
        small_recipe(tmp_path, **MIXED)
    assert small_recipe(tmp_path, "quantize.budget.max_drop=0.01", **MIXED).engines[0].precision == "mixed"


def test_selection_images_are_training_images_that_calibration_does_not_use() -> None:
    calibration, selection = set(calibration_indices(50, 20, 7)), selection_indices(50, 20, 10, 7)
    assert len(selection) == 10
    assert selection == sorted(selection)
    assert not calibration & set(selection)
    assert set(selection_indices(50, 20, 100, 7)) == set(range(50)) - calibration


def test_without_a_training_image_left_the_selection_is_refused() -> None:
    with pytest.raises(DataError, match="expected more than 20 training images, got 20; lower quantize.images"):
        selection_indices(20, 20, 10, 0)

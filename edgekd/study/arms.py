"""The arms and the runs of a study, of distillation methods or of quantization."""

from __future__ import annotations

from pathlib import Path

from edgekd.core.recipe import Method, Recipe
from edgekd.study.plan import StudyRun, arms_of, study_runs
from edgekd.study.quantized import arm_runs, methods_of, quantized_arms, start_runs


def methods_by_arm(recipe: Recipe) -> dict[str, dict[str, Method]]:
    """Return the distillation methods of each arm by its key in the recipe, `study.arms.NAME`.

    Raises:
        RecipeError: as `arms_of` or `quantized_arms`.
    """
    if recipe.study.quantized is None:
        return {f"study.arms.{name}": methods for name, methods in arms_of(recipe).items()}
    arms = quantized_arms(recipe)
    return {f"study.quantized.arms.{name}": methods_of(recipe, arm) for name, arm in arms.items()}


def runs_in_order(recipe: Recipe, out: Path, weights: Path) -> tuple[list[StudyRun], list[StudyRun]]:
    """Return the runs that train the students which arms start from, and the runs of the arms; arguments as in `study_runs`."""
    if recipe.study.quantized is None:
        return [], study_runs(recipe, out, weights)
    return start_runs(recipe, out, weights), arm_runs(recipe, out, weights)

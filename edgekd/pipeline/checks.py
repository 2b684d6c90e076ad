"""Checks of a recipe that need its plugins or this machine, before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec

from edgekd.board.precision import Precision
from edgekd.compile.stage import checked_options
from edgekd.core import plugins
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.recipe_loading import check_plugins
from edgekd.core.stage import Stage
from edgekd.core.workspace import Workspace
from edgekd.errors import RecipeError
from edgekd.planning import further_students, imitated, quantizer_of


def check_options(recipe: Recipe) -> None:
    """Check all plugins and plugin options of a recipe, before any work is done.

    Raises:
        UserError: unknown plugin, option or precision, or decoding that would be done in int8.
    """
    # A board has no torch: it compiles and measures what was trained elsewhere.
    check_plugins(recipe, but=() if find_spec("torch") else plugins.TRAINED)
    if recipe.quantize.budget is not None:
        plugins.load("rankings", recipe.quantize.budget.rank)
    if further_students(recipe):
        _check_says_grids("qat.quantizer", imitated(recipe)[0])
    for name in recipe.export.rewrite:
        plugins.load("rewrites", name)
    for engine in recipe.engines:
        checked_options(engine)
        if engine.precision is Precision.MIXED:
            _check_keeps_float(engine)
            _check_says_grids(f"engines: {engine.id}", quantizer_of(engine))
        if recipe.export.detections != "heads" and engine.precision.is_quantized:
            _check_float_decoding(engine)


def _check_keeps_float(engine: Engine) -> None:
    name = quantizer_of(engine)
    if not plugins.load("quantizers", name).KEEPS_FLOAT and plugins.target(engine.target).keeps_float is None:
        raise RecipeError(
            f"engines: {engine.id}: target {engine.target} cannot keep layers in float, expected a precision other than mixed"
        )


def _check_says_grids(where: str, quantizer: str) -> None:
    """RecipeError for a quantizer that does not say where it quantizes, UserError for one that does not exist."""
    if not hasattr(plugins.load("quantizers", quantizer), "grids"):
        raise RecipeError(f"{where}: the quantizer {quantizer} does not say what it quantizes (function grids)")


def check_training(recipe: Recipe, workspace: Workspace, stages: Sequence[Stage]) -> None:
    """Check that this machine can train with the section `trainer`, where a stage trains that never did in this folder.

    A run that was trained elsewhere is compiled and measured on machines that could not train it.

    Raises:
        RecipeError: an accelerator, strategy or number of devices that does not exist here.
    """
    sections = {
        "teacher" if stage.name == "teacher" else "student"
        for stage in stages
        if stage.kind == "checkpoint" and workspace.present(stage.name) is None
    }
    check_trainer(recipe, sections)


def check_trainer(recipe: Recipe, sections: Collection[str]) -> None:
    """Check that this machine can train the networks of some sections of a recipe; RecipeError as `check_training`."""
    budgets = {name: train for name in sorted(sections) if (train := getattr(recipe, name).train)}
    if budgets and find_spec("torch"):  # without it the first stage that trains says what is missing
        with plugins.packages_of("training"):
            from edgekd.train import place

            place.check_trainer(recipe.trainer, budgets)


def _check_float_decoding(engine: Engine) -> None:
    name = quantizer_of(engine)
    if not plugins.load("quantizers", name).KEEPS_FLOAT:
        raise RecipeError(
            f"engines: {engine.id} would decode in int8, which destroys boxes: its toolchain quantizes the whole graph "
            f"(quantizer {name}); set export.detections: heads"
        )

"""The runs of a study of quantization: for each seed one distilled student, then every arm made of it, each a recipe of its own.

So arms of one seed differ in what they compare alone: all of them start from the same weights.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.board.precision import Precision
from edgekd.core.recipe import DEPLOYED, Engine, Method, Qat, QuantizedArm, Recipe
from edgekd.errors import RecipeError, did_you_mean
from edgekd.study.plan import StudyRun, given_teacher, student_run

START = "distilled"  # the run of a seed's student, which all of its arms start from


def quantized_arms(recipe: Recipe) -> dict[str, QuantizedArm]:
    """Return arm -> settings; the four that answer whether QAT pays where the recipe names none.

    Raises:
        RecipeError: no section `qat`, no int8 engine, an unknown one, or no arm has the name of the baseline.
    """
    study = recipe.study.quantized
    assert study is not None
    if recipe.qat is None:
        raise RecipeError("study.quantized needs section `qat`, which has the budget of the further training; add it")
    engines_of(recipe)
    arms = dict(study.arms)
    if not arms:
        arms = {
            "ptq": QuantizedArm(),
            "control": QuantizedArm(student="control"),
            "qat": QuantizedArm(student="qat", methods={}),
        }
        if recipe.qat.methods:
            arms[f"qat+{'+'.join(recipe.qat.methods)}"] = QuantizedArm(student="qat")
    if recipe.quantize.budget is None:
        for name, arm in arms.items():
            if arm.precision == "mixed":
                raise RecipeError(
                    f"study.quantized.arms.{name}: precision mixed needs `quantize.budget`, which decides the layers in float"
                )
    if study.baseline not in arms:
        raise RecipeError(
            f"study.quantized.baseline: no arm is called {study.baseline!r}{did_you_mean(study.baseline, arms)}"
        )
    return arms


def methods_of(recipe: Recipe, arm: QuantizedArm) -> dict[str, Method]:
    """Return the distillation methods of an arm's further training, {} for an arm without one."""
    assert recipe.qat is not None
    if arm.student == DEPLOYED:
        return {}
    return recipe.qat.methods if arm.methods is None else arm.methods


def engines_of(recipe: Recipe) -> tuple[Engine, ...]:
    """Return the int8 engines that the study builds for every arm.

    Raises:
        RecipeError: there are none, or one of `study.quantized.engines` is none of them.
    """
    assert recipe.study.quantized is not None
    known = {one.id: one for one in recipe.engines if one.precision == "int8" and one.student == DEPLOYED}
    wanted = recipe.study.quantized.engines or tuple(known)
    for name in wanted:
        if name not in known:
            raise RecipeError(
                f"study.quantized.engines: no int8 engine of the recipe is called {name!r}{did_you_mean(name, known)}"
            )
    if not wanted:
        raise RecipeError("study.quantized: the recipe has no int8 engine; add one to `engines`")
    return tuple(known[name] for name in wanted)


def engines_of_arms(recipe: Recipe) -> tuple[Engine, ...]:
    """Return every engine that some arm makes, for checks before any work; errors as `quantized_arms` and `engines_of`."""
    made = (_engine(engine, arm) for arm in quantized_arms(recipe).values() for engine in engines_of(recipe))
    return tuple({(one.id, one.student, one.precision): one for one in made}.values())


def start_runs(recipe: Recipe, out: Path, weights: Path) -> list[StudyRun]:
    """Return the run of each seed's student, [] where the recipe's student is a trained one; arguments as in `study_runs`."""
    if recipe.student.train is None:
        return []
    return [student_run(recipe, out, weights, START, recipe.distill.methods, seed) for seed in recipe.study.seeds]


def arm_runs(recipe: Recipe, out: Path, weights: Path) -> list[StudyRun]:
    """Return the runs of the arms, seed by seed; arguments as in `study_runs`. Their students' weights need not be there yet."""
    started = {run.seed: run.folder / run.stage / "weights.safetensors" for run in start_runs(recipe, out, weights)}
    runs = []
    for seed in recipe.study.seeds:
        student = recipe.student
        if seed in started:
            given = {"checkpoint": started[seed], "checkpoint_key": None, "checkpoint_skip": (), "train": None}
            student = student.model_copy(update=given)
        for name, arm in quantized_arms(recipe).items():
            changes = {
                "name": f"{recipe.name}_{name}_seed{seed}",
                "seed": seed,
                "teacher": given_teacher(recipe, weights),
                "student": student,
                "distill": recipe.distill.model_copy(update={"methods": {}}),
                "qat": _qat(recipe, arm),
                "engines": tuple(_engine(one, arm) for one in engines_of(recipe)),
                "check": "off",
            }
            stage = "student" if arm.student == DEPLOYED else arm.student
            folder = out / "runs" / f"{name}-seed{seed}"
            ids = tuple(one.id for one in engines_of(recipe))
            runs.append(StudyRun(name, seed, recipe.model_copy(update=changes), folder, stage, ids))
    return runs


def _qat(recipe: Recipe, arm: QuantizedArm) -> Qat | None:
    """Return the further training of an arm; it always runs, since that is what the study asks about."""
    assert recipe.qat is not None
    if arm.student == DEPLOYED:
        return None
    return recipe.qat.model_copy(update={"methods": methods_of(recipe, arm), "when": "always"})


def _engine(engine: Engine, arm: QuantizedArm) -> Engine:
    return engine.model_copy(update={"student": arm.student, "precision": Precision(arm.precision)})

"""The runs of a study: one teacher, then every arm with every seed. Each run is an ordinary recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from edgekd.board.files import write_atomic
from edgekd.core.recipe import PLAIN, Method, Recipe, Teacher
from edgekd.errors import RecipeError, did_you_mean

TEACHER = "teacher"


@dataclass(frozen=True)
class StudyRun:
    """One student: an arm (a combination of methods) with a seed, in a separate folder.

    stage: the stage that trains it, `student` without methods, else `distilled`; in a study of quantization also `control`, `qat`.
    engines: ids of the engines that are made of it and scored.
    """

    arm: str
    seed: int
    recipe: Recipe
    folder: Path
    stage: str
    engines: tuple[str, ...] = ()

    @property
    def recipe_file(self) -> Path:
        """Path of the run's recipe, an ordinary recipe for `edgekd run`."""
        return self.folder / "recipe.yaml"

    @property
    def score(self) -> str:
        """The stage that scores it."""
        return f"evaluate/{self.stage}"

    @property
    def until(self) -> str:
        """The stages that score it and its engines, joined by commas; with what they need they are all that the study runs."""
        return ",".join((self.score, *(f"evaluate/{name}" for name in self.engines)))


def arms_of(recipe: Recipe) -> dict[str, dict[str, Method]]:
    """Return arm -> methods: the plain student, and the named arms or else the recipe's methods.

    Raises:
        RecipeError: the student is not trained, an arm has no methods, or no arm is called `study.baseline`.
    """
    if recipe.student.train is None:
        raise RecipeError("student.train: a study trains its students, and this recipe's is not trained; add a budget")
    named = dict(recipe.study.arms)
    if not named and recipe.distill.methods:
        named = {"+".join(recipe.distill.methods): recipe.distill.methods}
    empty = [name for name, methods in named.items() if not methods and name != PLAIN]
    if empty:
        raise RecipeError(
            f"study.arms.{empty[0]}: expected methods, got none; the student without methods is always there, as {PLAIN!r}"
        )
    arms: dict[str, dict[str, Method]] = {PLAIN: {}, **named}
    if recipe.study.baseline not in arms:
        wanted = recipe.study.baseline
        raise RecipeError(f"study.baseline: no arm is called {wanted!r}{did_you_mean(wanted, arms)}")
    return arms


def teacher_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe that makes and scores the teacher, once for all arms and seeds; the methods are the arms' own."""
    return recipe.model_copy(
        update={
            "engines": (),
            "check": "off",
            "qat": None,
            "distill": recipe.distill.model_copy(update={"methods": {}}),
        }
    )


def teacher_run(recipe: Recipe, out: Path) -> StudyRun:
    """Return the teacher as a run, for launchers that train it elsewhere."""
    return StudyRun(TEACHER, recipe.seed, teacher_recipe(recipe), out / TEACHER, TEACHER)


def study_runs(recipe: Recipe, out: Path, weights: Path) -> list[StudyRun]:
    """Return the runs, seed by seed: a first comparison of all arms is available early.

    Every run of one seed has the same budget, initial weights and order of data: they follow from the seed alone.

    Args:
        recipe: recipe of the study.
        out: the study's folder.
        weights: the teacher's checkpoint.
    """
    runs = []
    for seed in recipe.study.seeds:
        for arm, methods in arms_of(recipe).items():
            runs.append(student_run(recipe, out, weights, arm, methods, seed))
    return runs


def student_run(recipe: Recipe, out: Path, weights: Path, arm: str, methods: dict[str, Method], seed: int) -> StudyRun:
    """Return the run of one student; arguments as in `study_runs`, `arm` with these methods and this seed."""
    changes = {
        "name": f"{recipe.name}_{arm}_seed{seed}",
        "seed": seed,
        "teacher": given_teacher(recipe, weights),
        "distill": recipe.distill.model_copy(update={"methods": methods, "baseline": not methods}),
        "engines": (),
        "qat": None,
        "check": "off",
    }
    stage = "distilled" if methods else "student"
    return StudyRun(arm, seed, recipe.model_copy(update=changes), out / "runs" / f"{arm}-seed{seed}", stage)


def given_teacher(recipe: Recipe, weights: Path) -> Teacher:
    """Return the recipe's teacher with these weights, trained and held to its floor elsewhere."""
    return recipe.teacher.model_copy(update={"checkpoint": weights.resolve(), "train": None, "floor": 0.0})


def recipe_text(run: StudyRun) -> str:
    """Return the run's recipe as YAML, paths absolute."""
    return yaml.safe_dump(run.recipe.model_dump(mode="json", exclude={"study"}), sort_keys=False)


def write_recipe(run: StudyRun) -> None:
    """Write the run's recipe as a file that anyone can run again by hand."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(run.recipe_file, recipe_text(run))

"""Does a study: checks its arms, makes the teacher, does the runs by a launcher, and writes what there is at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekd import planning
from edgekd.core import plugins
from edgekd.core.error_notes import noted_on
from edgekd.core.plugins import packages_of
from edgekd.core.recipe import Recipe
from edgekd.core.workspace import disk_errors
from edgekd.data.splits import shared_splits
from edgekd.errors import TargetError
from edgekd.pipeline import StageRun
from edgekd.pipeline.checks import check_options
from edgekd.study import failed_engines, work
from edgekd.study.arms import methods_by_arm, runs_in_order
from edgekd.study.plan import StudyRun, teacher_recipe
from edgekd.study.quantized import engines_of, engines_of_arms
from edgekd.study.results import Findings, Result


def run(
    recipe: Recipe,
    folder: Path,
    on_stage: Callable[[StageRun], None],
    on_run: Callable[[StudyRun, Result, int, int], None],
    retry: bool = False,
) -> dict[str, Any]:
    """Do a study in an absolute folder and return its content; arguments and errors as `edgekd.run_study`."""
    launcher, options = plugins.load("launchers", recipe.study.launcher), recipe.study.launcher_options()

    def launch(wanted: Sequence[StudyRun], on_end: Callable[[StudyRun, Result], None]) -> None:
        launcher.run_all(wanted, options, on_end)

    made = {"engines": engines_of_arms(recipe)} if recipe.study.quantized else {}
    check_options(recipe.model_copy(update=made) if made else teacher_recipe(recipe))
    if recipe.study.quantized:
        _check_engines(recipe)
    with shared_splits():
        _check_arms(recipe)
        if launcher.TRAINS_TEACHER:
            work.launch_teacher(recipe, folder, launch)
        teacher = work.make_teacher(recipe, folder, on_stage)
    starts, runs = runs_in_order(recipe, folder, teacher["teacher"].file("weights.safetensors"))
    if retry:
        failed_engines.forget(runs)
    findings = Findings(recipe, teacher, runs, folder)
    ended: set[Path] = set()

    def remember(one: StudyRun, result: Result) -> None:
        ended.add(one.folder)
        if one in runs:
            findings.add(one, result)
        on_run(one, result, len(ended), len(starts) + len(runs))

    with disk_errors(folder):
        try:
            for wanted in filter(None, (starts, runs)):  # the students that the others start from are there first
                work.do_all(wanted, launch, remember)
        except BaseException as exc:  # an interrupt above all: the tables show what there is
            with noted_on(exc):
                findings.write()
            raise
        return findings.write().to_dict()


def _check_engines(recipe: Recipe) -> None:
    """Refuse engines that cannot be scored, before the teacher is trained; those of a board that is away may be scored already.

    Raises:
        TargetError: an engine's board cannot run it.
    """
    for name, reason in planning.cannot_run(engines_of(recipe)).items():
        if reason:
            raise TargetError(
                f"study.quantized: {name} cannot be scored: {reason}; leave it out of study.quantized.engines"
            )


def _check_arms(recipe: Recipe) -> None:
    """Check the methods of the arms, and that the packages are there, all before the teacher is trained."""
    methods = methods_by_arm(recipe)
    with packages_of("study"):
        import matplotlib.figure  # noqa: F401 - of its picture
        import scipy.stats  # noqa: F401 - of its intervals

        from edgekd.distill.plan import check_arms

        check_arms(recipe, methods)

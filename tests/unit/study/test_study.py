"""Studies: which runs there are, what a difference is worth, the table and the picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekd.api import run_study
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import RecipeError
from edgekd.study import results
from edgekd.study.difference import compare
from edgekd.study.plan import StudyRun, arms_of, study_runs, teacher_recipe, write_recipe
from edgekd.study.results import Findings
from tests.unit.core.small_recipe import small_recipe

ARMS = {"seeds": [4, 5], "arms": {"kd": {"kd": {}}, "kd+bckd": {"kd": {"weight": 2.0}, "bckd": {}}}}


def runs_of(recipe: Recipe, out: Path) -> list[StudyRun]:
    weights = out / "weights"
    weights.touch()
    return study_runs(recipe, out, weights)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_every_arm_runs_with_every_seed_and_the_plain_student_is_one(tmp_path: Path) -> None:
    runs = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)
    assert [(run.arm, run.seed) for run in runs] == [
        (arm, seed) for seed in (4, 5) for arm in ("plain", "kd", "kd+bckd")
    ]  # fmt: skip
    assert [run.stage for run in runs[:3]] == ["student", "distilled", "distilled"]
    assert len({run.folder for run in runs}) == 6


def test_runs_of_a_seed_differ_in_nothing_but_the_methods(tmp_path: Path) -> None:
    plain, kd, both, *others = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)
    for run in (kd, both):
        update = {"name": "", "distill": plain.recipe.distill}
        assert run.recipe.model_copy(update=update) == plain.recipe.model_copy(update=update)
    assert both.recipe.distill.methods["kd"].weight == 2.0
    assert others[0].recipe.student == plain.recipe.student
    assert [run.recipe.seed for run in others] == [5, 5, 5]


def test_without_arms_the_recipes_own_methods_are_compared_with_the_plain_student(tmp_path: Path) -> None:
    assert list(arms_of(small_recipe(tmp_path))) == ["plain", "kd"]


def test_an_arms_name_must_be_able_to_name_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a name that can be a folder's"):
        small_recipe(tmp_path, study={"arms": {"../up": {"kd": {}}}})


def test_the_recipe_of_a_run_can_be_run_by_hand(tmp_path: Path) -> None:
    run = runs_of(small_recipe(tmp_path, study=ARMS), tmp_path)[1]
    write_recipe(run)
    loaded = load_recipe(str(run.recipe_file))
    study = {"study": run.recipe.study}  # of no use to a single run, so it is not written
    assert loaded.model_copy(update=study) == run.recipe
    assert "study" not in yaml.safe_load(run.recipe_file.read_text())


# --- what a difference is worth ---------------------------------------------------------------------------------------


def test_the_interval_is_students_t_of_the_paired_differences() -> None:
    found = compare({0: 0.53, 1: 0.56, 2: 0.59}, {0: 0.50, 1: 0.52, 2: 0.54}, higher_is_better=True)
    assert found is not None
    assert found.by_seed == pytest.approx([0.03, 0.04, 0.05])
    # By hand: mean 0.04, sd 0.01, t(0.975, 2) = 4.302653: half width 4.302653 * 0.01 / sqrt(3) = 0.0248414
    assert (found.mean, found.low, found.high) == pytest.approx((0.04, 0.0151586, 0.0648414), abs=1e-6)
    assert found.verdict == "better"


@pytest.mark.parametrize(
    ("arm", "higher_is_better", "verdict"),
    [
        ({0: 0.40, 1: 0.41, 2: 0.42}, True, "worse"),
        ({0: 0.40, 1: 0.41, 2: 0.42}, False, "better"),
        ({0: 0.60, 1: 0.61, 2: 0.62}, False, "worse"),
        ({0: 0.40, 1: 0.60, 2: 0.51}, True, "no measurable difference"),
        ({2: 0.9, 7: 0.1}, True, "one seed"),
    ],
)
def test_a_gain_is_one_only_when_the_interval_leaves_out_zero(
    arm: dict[int, float], higher_is_better: bool, verdict: str
) -> None:
    found = compare(arm, {0: 0.50, 1: 0.51, 2: 0.52}, higher_is_better)
    assert found is not None
    assert found.verdict == verdict


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert compare({0: 0.5}, {1: 0.5}, higher_is_better=True) is None


# --- what stops a study, and what it leaves meanwhile -----------------------------------------------------------------


class Details:
    """Stands for an artifact of which only the details are read."""

    def __init__(self, **details: object) -> None:
        self.details = details


def artifacts(run: StudyRun, miou: float) -> dict[str, Details]:
    training = {"steps": 10, "seconds_per_step": 0.05, "peak_memory_bytes": 2**30, "curve": [],
                "device": "cpu" if run.seed == 4 else "cuda:1", "precision": "32-true",
                "validation": [[5, miou / 2], [10, miou]]}  # fmt: skip
    metrics = {"miou": miou, "boundary_iou": miou - 0.1, "spurious_components": 0.3, "missing_components": 0.2}
    return {run.stage: Details(params=1000, training=training), run.score: Details(metrics=metrics)}


def test_a_baseline_that_is_no_arm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no arm is called 'kdd'; did you mean 'kd'"):
        arms_of(small_recipe(tmp_path, study={**ARMS, "baseline": "kdd"}))


@pytest.mark.parametrize(("study", "said"), [
    ({**ARMS, "baseline": "kdd"}, "no arm is called 'kdd'"),
    ({"arms": {"hot": {"kd": {"options": {"tau": 4}}}}}, r"study\.arms\.hot\.kd\.options\.tau: unknown option"),
    ({"arms": {"hot": {"kdd": {}}}}, r"study\.arms\.hot\.kdd\.options: no method is called 'kdd'"),
    ({"arms": {"control": {}, "kd": {"kd": {}}}}, r"study\.arms\.control: expected methods, got none"),
    ({"arms": {"off": {"skd": {"options": {"pixel": 0, "pairwise": 0}}}}}, r"study\.arms\.off: .*switch off every term"),
])  # fmt: skip
def test_a_wrong_arm_is_refused_by_name_before_the_teacher_is_trained(
    study: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        run_study(small_recipe(tmp_path, study=study), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_of_a_student_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, study=ARMS)
    untrained = recipe.model_copy(update={"student": recipe.student.model_copy(update={"train": None})})
    with pytest.raises(RecipeError, match="student.train: a study trains its students"):
        arms_of(untrained)


@pytest.mark.parametrize(("study", "said"), [
    ({"arms": {"plain": {"kd": {}}}}, "'plain' is the student without methods"),
    ({"arms": {"teacher": {"kd": {}}}}, "'teacher' is the teacher's row in the table"),
    ({"seeds": [1, 1]}, "every seed once"), ({"seeds": [-1]}, "greater than or equal to 0"),
])  # fmt: skip
def test_arms_and_seeds_that_would_be_confused_are_refused(study: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        small_recipe(tmp_path, study=study)


def test_the_teacher_does_not_depend_on_methods_that_no_arm_uses(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, study=ARMS)
    assert recipe.distill.methods
    assert not teacher_recipe(recipe).distill.methods


def test_what_is_there_is_written_while_the_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tmp_path, study=ARMS)
    runs = runs_of(recipe, tmp_path)
    teacher = {"teacher": Details(params=5000), "evaluate/teacher": Details(metrics={"miou": 0.61})}
    findings = Findings(recipe, teacher, runs, tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(results, "WRITE_EVERY_S", 0.0)
    findings.add(runs[0], artifacts(runs[0], 0.5))  # type: ignore[arg-type]
    written = json.loads((tmp_path / "study.json").read_text())
    assert [run["status"] for run in written["arms"][0]["runs"]] == ["measured", "missing"]
    assert written["arms"][0]["runs"][1]["reason"] == "not run yet"
    assert (tmp_path / "study.md").is_file()
    (line,) = csv.DictReader((tmp_path / "study.csv").read_text().splitlines())
    assert (line["arm"], line["seed"], line["miou"]) == ("plain", "4", "0.5")
    monkeypatch.setattr(results, "WRITE_EVERY_S", 3600.0)
    findings.add(runs[3], artifacts(runs[3], 0.5))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "study.json").read_text()) == written
    assert [run.status for run in findings.write().arms[0].runs] == ["measured", "measured"]

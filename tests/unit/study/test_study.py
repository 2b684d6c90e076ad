"""Studies: which runs there are, what a difference is worth, the table and the picture."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
import yaml
from PIL import Image

from edgekd.api import run_study
from edgekd.cli.show import print_study
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import RecipeError
from edgekd.study import results
from edgekd.study.difference import compare
from edgekd.study.figure import draw
from edgekd.study.plan import StudyRun, arms_of, study_runs, teacher_recipe, write_recipe
from edgekd.study.results import Findings, NoResult, summarize
from edgekd.study.table import headers, markdown, rows
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


# --- study.json, the table, the picture -------------------------------------------------------------------------------


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


def summary(folder: Path, **settings: object) -> dict:
    recipe = small_recipe(folder, study={**ARMS, **settings})
    gains = {"plain": 0.0, "kd": 0.02, "kd+bckd": 0.05}
    found = [
        (
            run,
            NoResult("failed", "out of memory")
            if (run.arm, run.seed) == ("kd+bckd", 5)
            else artifacts(run, 0.01 * run.seed + gains[run.arm]),
        )
        for run in runs_of(recipe, folder)
    ]
    teacher = {"teacher": Details(params=5000), "evaluate/teacher": Details(metrics={"miou": 0.61})}
    return summarize(recipe, teacher, found)  # type: ignore[arg-type]


@pytest.fixture
def study(tmp_path: Path) -> dict:
    return summary(tmp_path)


def test_any_arm_can_be_the_baseline(tmp_path: Path) -> None:
    study = summary(tmp_path, baseline="kd")
    plain, kd, both = (arm["metrics"]["miou"]["difference"] for arm in study["arms"])
    assert kd is None
    assert plain["by_seed"] == pytest.approx([-0.02, -0.02])
    assert both["by_seed"] == pytest.approx([0.03])
    assert [row[-1] for row in rows(study)] == ["–", "worse", "baseline", "one seed"]
    assert "difference to `kd`" in markdown(study)


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
def test_a_wrong_arm_is_refused_by_name_before_the_teacher_is_trained(study: dict, said: str, tmp_path: Path) -> None:
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
    ({"arms": {"teacher": {"kd": {}}}}, "'teacher' has a row of its own"),
    ({"seeds": [1, 1]}, "every seed once"), ({"seeds": [-1]}, "greater than or equal to 0"),
])  # fmt: skip
def test_arms_and_seeds_that_would_be_confused_are_refused(study: dict, said: str, tmp_path: Path) -> None:
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
    assert findings.add(runs[0], artifacts(runs[0], 0.5)) == 1  # type: ignore[arg-type]
    written = json.loads((tmp_path / "study.json").read_text())
    assert [run["status"] for run in written["arms"][0]["runs"]] == ["measured", "missing"]
    assert written["arms"][0]["runs"][1]["reason"] == "not run yet"
    assert (tmp_path / "study.md").is_file()
    (line,) = csv.DictReader((tmp_path / "study.csv").read_text().splitlines())
    assert (line["arm"], line["seed"], line["miou"]) == ("plain", "4", "0.5")
    monkeypatch.setattr(results, "WRITE_EVERY_S", 3600.0)
    assert findings.add(runs[3], artifacts(runs[3], 0.5)) == 2  # type: ignore[arg-type]
    assert json.loads((tmp_path / "study.json").read_text()) == written
    assert [run["status"] for run in findings.write()["arms"][0]["runs"]] == ["measured", "measured"]


def test_a_summary_has_mean_deviation_and_difference_of_what_was_measured(study: dict) -> None:
    plain, kd, both = study["arms"]
    assert plain["metrics"]["miou"]["mean"] == pytest.approx(0.045)
    assert plain["metrics"]["miou"]["sd"] == pytest.approx(statistics.stdev([0.04, 0.05]))
    assert plain["metrics"]["miou"]["difference"] is None
    assert kd["metrics"]["miou"]["difference"]["by_seed"] == pytest.approx([0.02, 0.02])
    assert both["metrics"]["miou"]["n"] == 1
    assert both["metrics"]["miou"]["difference"]["verdict"] == "one seed"
    assert [run["status"] for run in both["runs"]] == ["measured", "failed"]
    assert both["runs"][1]["reason"] == "out of memory"


def test_the_table_has_a_row_per_arm(study: dict) -> None:
    teacher, *table = rows(study)
    assert teacher[:4] == ("teacher", "–", "61.00", "+56.50")
    assert all(len(row) == len(headers(study)) for row in table)
    assert table[0][:4] == ("plain", "2", "4.50 ± 0.71", "–")
    assert table[1][3] == "+2.00 [+2.00, +2.00]"
    assert table[1][-3:] == ("50", "1024", "better")
    assert table[2][3] == "+5.00"
    assert [row[1] for row in table] == ["2", "2", "1"]
    text = markdown(study)
    rules_and_headers, networks, others = (
        4,
        4,
        1,
    )  # of two tables: the teacher and all arms; the first against the other
    assert text.count("\n|") == rules_and_headers + networks + others
    assert "`kd` minus each other arm" in text
    assert "| kd+bckd | 1 | -3.00 | -3.00 | +0.00 | +0.00 |" in text
    assert "teacher 61.00 mIoU" in text
    assert "for the best of 2, picked afterwards, it is too narrow" in text
    assert "trained in 32-true on cpu and in 32-true on cuda" in text
    assert "without the teacher" not in text
    assert "because they failed: kd+bckd seed 5" in text


def test_the_teachers_row_has_its_difference_to_the_baselines_mean(study: dict) -> None:
    study["teacher"]["metrics"] = {"miou": 0.61, "missing_components": 0.5, "boundary_iou": None}
    for arm in study["arms"]:
        arm["metrics"]["missing_components"] = {**arm["metrics"]["miou"], "mean": 0.5348}
    teacher, *others = rows(study)
    assert teacher == ("teacher", "–", "61.00", "+56.50", "–", "–", "50.0: -3.5", "–", "–", "–")
    assert len(teacher) == len(others[0])


def test_an_arm_says_over_how_many_seeds_it_is_compared(tmp_path: Path) -> None:
    study = summary(tmp_path, baseline="kd+bckd")
    assert [row[1] for row in rows(study)] == ["–", "2 (1 paired)", "2 (1 paired)", "1"]
    figure = draw(study, tmp_path / "study.png")
    assert "after 10 steps, 1 seed (" in figure.get_suptitle()
    for run in study["arms"][2]["runs"]:
        run["status"] = "failed"
    for arm in study["arms"]:
        for found in arm["metrics"].values():
            found["difference"] = None
    assert [row[-1] for row in rows(study)] == ["–", *["no seed in common"] * 2, "baseline"]


def test_the_remark_about_the_teachers_answers_is_of_the_runs_not_of_the_recipe(study: dict) -> None:
    study["recipe"]["trainer"]["teacher_cache"] = "elsewhere"  # set after the runs
    assert "without the teacher" not in markdown(study)
    distilled = [run for arm in study["arms"][1:] for run in arm["runs"] if run["status"] == "measured"]
    for run in distilled:
        run["teacher_answers"] = "kept"
    assert "ms/step is without the teacher" in markdown(study)
    distilled[0]["teacher_answers"] = "live"
    assert "ms/step of some runs is without the teacher" in markdown(study)
    distilled[0]["world_size"] = 1
    assert "different numbers of devices" not in markdown(study)  # of the others it is not known
    distilled[1]["world_size"] = 2
    assert "different numbers of devices" in markdown(study)


def test_the_picture_is_drawn_also_with_a_run_missing(study: dict, tmp_path: Path) -> None:
    figure = draw(study, tmp_path / "study.png")
    _, *others = (arm["name"] for arm in study["arms"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == others
    with Image.open(tmp_path / "study.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50


def test_names_in_brackets_are_names(study: dict, capsys: pytest.CaptureFixture[str]) -> None:
    study["arms"][1]["name"] = "kd[w=2]"
    print_study(study)
    assert "kd[w=2]" in capsys.readouterr().out

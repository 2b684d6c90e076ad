"""Studies: study.json, its table and its picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekd.cli.show import print_study
from edgekd.errors import UserError
from edgekd.study import results
from edgekd.study.figure import draw
from edgekd.study.model import Arm, Difference, Study
from edgekd.study.results import NoResult, read_study, summarize
from edgekd.study.table import csv_lines, headers, markdown, rows
from tests.unit.core.small_recipe import small_recipe
from tests.unit.study.test_study import ARMS, Details, artifacts, runs_of


def summary(folder: Path, **settings: object) -> Study:
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
def study(tmp_path: Path) -> Study:
    return summary(tmp_path)


def changed(study: Study, change: Callable[[dict[str, Any]], None]) -> Study:
    """Return a study with another content of its file."""
    content = study.to_dict()
    change(content)
    return Study.model_validate(content)


def miou(arm: Arm) -> Difference:
    """Return an arm's difference to the baseline in mIoU."""
    difference = arm.metrics["miou"].difference
    assert difference is not None
    return difference


def test_any_arm_can_be_the_baseline(tmp_path: Path) -> None:
    study = summary(tmp_path, baseline="kd")
    plain, kd, both = study.arms
    assert kd.metrics["miou"].difference is None
    assert miou(plain).by_seed == pytest.approx([-0.02, -0.02])
    assert miou(both).by_seed == pytest.approx([0.03])
    assert [row[-1] for row in rows(study)] == ["–", "worse", "baseline", "one seed"]
    assert "difference to `kd`" in markdown(study)


def test_a_summary_has_mean_deviation_and_difference_of_what_was_measured(study: Study) -> None:
    plain, kd, both = study.arms
    assert plain.metrics["miou"].mean == pytest.approx(0.045)
    assert plain.metrics["miou"].sd == pytest.approx(statistics.stdev([0.04, 0.05]))
    assert plain.metrics["miou"].difference is None
    assert miou(kd).by_seed == pytest.approx([0.02, 0.02])
    assert both.metrics["miou"].n == 1
    assert miou(both).verdict == "one seed"
    assert [run.status for run in both.runs] == ["measured", "failed"]
    assert both.runs[1].to_dict() == {"seed": 5, "status": "failed", "reason": "out of memory"}


def test_the_table_has_a_row_per_arm(study: Study) -> None:
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
    assert "because they failed:\n\n- kd+bckd seed 5: out of memory\n" in text


def test_the_teachers_row_has_its_difference_to_the_baselines_mean(study: Study) -> None:
    def change(content: dict[str, Any]) -> None:
        content["teacher"]["metrics"] = {"miou": 0.61, "missing_components": 0.5, "boundary_iou": None}
        for arm in content["arms"]:
            arm["metrics"]["missing_components"] = {**arm["metrics"]["miou"], "mean": 0.5348}

    teacher, *others = rows(changed(study, change))
    assert teacher == ("teacher", "–", "61.00", "+56.50", "–", "–", "50.0: -3.5", "–", "–", "–")
    assert len(teacher) == len(others[0])


def test_an_arm_says_over_how_many_seeds_it_is_compared(tmp_path: Path) -> None:
    study = summary(tmp_path, baseline="kd+bckd")
    assert [row[1] for row in rows(study)] == ["–", "2 (1 paired)", "2 (1 paired)", "1"]
    figure = draw(study, tmp_path / "study.png")
    assert "after 10 steps, 1 seed (" in figure.get_suptitle()

    def change(content: dict[str, Any]) -> None:
        for run in content["arms"][2]["runs"]:
            run["status"] = "failed"
        for arm in content["arms"]:
            for metric in arm["metrics"].values():
                metric["difference"] = None

    assert [row[-1] for row in rows(changed(study, change))] == ["–", *["no seed in common"] * 2, "baseline"]


def test_the_remark_about_the_teachers_answers_is_of_the_runs_not_of_the_recipe(study: Study) -> None:
    content = study.to_dict()
    content["recipe"]["trainer"]["teacher_cache"] = "elsewhere"  # set after the runs
    distilled = [run for arm in content["arms"][1:] for run in arm["runs"] if run["status"] == "measured"]

    def text() -> str:
        return markdown(Study.model_validate(content))

    assert "without the teacher" not in text()
    for run in distilled:
        run["teacher_answers"] = "kept"
    assert "ms/step is without the teacher" in text()
    distilled[0]["teacher_answers"] = "live"
    assert "ms/step of some runs is without the teacher" in text()
    distilled[0]["world_size"] = 1
    assert "different numbers of devices" not in text()  # the other runs do not say theirs
    distilled[1]["world_size"] = 2
    assert "different numbers of devices" in text()


def test_the_picture_is_drawn_also_with_a_run_missing(study: Study, tmp_path: Path) -> None:
    figure = draw(study, tmp_path / "study.png")
    _, *others = (arm.name for arm in study.arms)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == others
    with Image.open(tmp_path / "study.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50


def test_names_in_brackets_are_names(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    print_study(changed(study, lambda content: content["arms"][1].update(name="kd[w=2]")))
    assert "kd[w=2]" in capsys.readouterr().out


# --- study.json as a file ---------------------------------------------------------------------------------------------

STORED = Path(__file__).parent / "stored"  # a study of before the models, and the table and lines that were made of it


def test_a_study_of_before_the_models_is_read_whole_and_gives_the_same_table(tmp_path: Path) -> None:
    study = read_study(STORED)
    content = json.loads((STORED / "study.json").read_text())
    assert json.loads(study.to_json()) == content
    assert markdown(study) == (STORED / "study.md").read_text()
    assert csv_lines(study) == (STORED / "study.csv").read_text()
    assert miou(study.arms[1]).low == content["arms"][1]["metrics"]["miou"]["difference"]["low"]
    assert draw(study, tmp_path / "study.png").axes[-1].get_ylabel() == "validation mIoU, %"


def test_what_is_written_is_read_again(study: Study, tmp_path: Path) -> None:
    results.write(study, tmp_path)
    assert read_study(tmp_path) == study


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "edgekd.study/2"}, "a newer edgekd wrote it; update this one"),
        ({"schema": "edgekd.report/1"}, "expected a study with schema edgekd.study/1, got 'edgekd.report/1'"),
        ({"recipe": {"task": "pose"}}, "recipe: Value error, expected semantic, detection, instance"),
        ({"arms": [{"name": "a", "runs": [{"status": "measured"}]}]}, "arms.0.runs.0.seed: Field required"),
        ({"baseline": "lost"}, "arms: Value error, none is called 'lost', the baseline"),
    ],
)
def test_a_study_that_does_not_fit_is_one_line(
    change: dict[str, Any], words: str, study: Study, tmp_path: Path
) -> None:
    (tmp_path / "study.json").write_text(json.dumps(study.to_dict() | change))
    with pytest.raises(UserError) as refusal:
        read_study(tmp_path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_a_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder of an edgekd study"):
        read_study(tmp_path)

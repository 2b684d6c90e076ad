"""Studies of quantization: which runs there are, what they share, and that engines are compared with the control's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd import planning
from edgekd.api import run_study
from edgekd.core.recipe import Budget, Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import RecipeError, TargetError
from edgekd.pipeline.checks import check_options
from edgekd.study.figure import draw
from edgekd.study.model import Study
from edgekd.study.plan import StudyRun, write_recipe
from edgekd.study.quantized import arm_runs, engines_of_arms, quantized_arms, start_runs
from edgekd.study.results import NoResult, summarize
from edgekd.study.table import headers, markdown, rows
from tests.unit.core.small_recipe import small_recipe
from tests.unit.study.test_study import Details

ENGINES = [{"target": "onnxruntime", "precision": "int8"}, {"target": "openvino", "precision": "int8"}]
QAT = {"train": {"steps": 5}}


def recipe_of(folder: Path, **quantized: Any) -> Recipe:
    return small_recipe(folder, qat=QAT, engines=ENGINES, study={"seeds": [4, 5], "quantized": quantized})


def runs_of(recipe: Recipe, out: Path) -> list[StudyRun]:
    return arm_runs(recipe, out, out / "weights")


def test_the_default_arms_answer_whether_qat_pays_and_whether_the_teacher_helps(tmp_path: Path) -> None:
    arms = quantized_arms(recipe_of(tmp_path))
    assert {name: arm.student for name, arm in arms.items()} == {
        "ptq": "deployed", "control": "control", "qat": "qat", "qat+kd": "qat",
    }  # fmt: skip
    assert arms["qat"].methods == {}
    assert arms["qat+kd"].methods is None


def test_each_seed_trains_one_student_and_its_arms_start_from_it(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    starts, runs = start_runs(recipe, tmp_path, tmp_path / "weights"), runs_of(recipe, tmp_path)
    assert [(run.seed, run.stage, run.recipe.qat, run.recipe.engines) for run in starts] == [
        (4, "distilled", None, ()), (5, "distilled", None, ()),
    ]  # fmt: skip
    assert [(run.arm, run.seed, run.stage) for run in runs[:4]] == [
        ("ptq", 4, "student"), ("control", 4, "control"), ("qat", 4, "qat"), ("qat+kd", 4, "qat"),
    ]  # fmt: skip
    for run in runs:
        start = next(one for one in starts if one.seed == run.seed)
        assert run.recipe.student.checkpoint == start.folder / "distilled/weights.safetensors"
        assert run.recipe.student.train is None
    assert len({run.folder for run in (*starts, *runs)}) == 10


def test_a_given_student_is_the_start_of_every_seed(tmp_path: Path) -> None:
    student = {"family": "edgeseg", "variant": "n", "checkpoint": str(tmp_path / "s.safetensors")}
    qat = {**QAT, "methods": {"kd": {}}}
    recipe = small_recipe(
        tmp_path, qat=qat, engines=ENGINES, student=student, distill={"methods": {}}, study={"quantized": {}}
    )
    assert start_runs(recipe, tmp_path, tmp_path / "weights") == []
    assert {run.recipe.student.checkpoint for run in runs_of(recipe, tmp_path)} == {tmp_path / "s.safetensors"}


def test_a_run_makes_and_scores_the_engines_of_its_arm_alone(tmp_path: Path) -> None:
    ptq, control, qat, both = runs_of(recipe_of(tmp_path), tmp_path)[:4]
    assert qat.until == "evaluate/qat,evaluate/onnxruntime-int8,evaluate/openvino-int8"
    for run, student in ((ptq, "deployed"), (control, "control"), (qat, "qat")):
        assert [(one.id, one.student) for one in run.recipe.engines] == [
            ("onnxruntime-int8", student), ("openvino-int8", student),
        ]  # fmt: skip
        write_recipe(run)
        loaded = load_recipe(str(run.recipe_file))
        assert loaded.model_copy(update={"study": run.recipe.study}) == run.recipe
    assert list(both.recipe.qat.methods) == ["kd"] if both.recipe.qat else False
    names = {stage.name for stage in planning.select(planning.plan(control.recipe), control.until)}
    assert {"control", "evaluate/control", "quantize/qdq-ptq-control", "engine/openvino-int8"} <= names
    assert not {"qat", "export-qat", "bench"} & names
    asked = {stage.name for stage in planning.select(planning.plan(ptq.recipe), ptq.until)}
    assert not {"qat", "control"} & asked


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"qat": None, "study": {"quantized": {}}}, "study.quantized needs section `qat`"),
        ({"study": {"quantized": {"engines": ["openvino-int9"]}}}, "no int8 engine of the recipe is called 'openvino-int9'"),
        ({"study": {"quantized": {"baseline": "contrl"}}}, "no arm is called 'contrl'; did you mean 'control'"),
        ({"study": {"quantized": {"arms": {"ptq": {"methods": {}}}}}}, "`methods` needs further training"),
        ({"study": {"quantized": {"arms": {"distilled": {}}}}}, "'distilled' has a run of its own"),
        ({"study": {"quantized": {"baseline": "few", "arms": {"few": {"precision": "mixed"}}}}}, "few: precision mixed needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_studied_is_refused(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        quantized_arms(small_recipe(tmp_path, **{"qat": QAT, "engines": ENGINES, **sections}))


def test_an_engine_that_cannot_run_here_is_refused_before_the_teacher_is_trained(tmp_path: Path) -> None:
    chip = {"target": "rknn", "precision": "int8", "options": {"chip": "rk3588"}}
    recipe = small_recipe(tmp_path, qat=QAT, engines=[*ENGINES, chip], study={"quantized": {}})
    with pytest.raises(TargetError, match=r"study.quantized: rknn-int8 cannot be scored: .*; leave it out of study"):
        run_study(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_engines_of_all_arms_are_known_before_any_work(tmp_path: Path) -> None:
    arms = {
        "ptq": {},
        "few": {"precision": "mixed"},
        "control": {"student": "control"},
        "labels": {"student": "control"},
    }
    recipe = recipe_of(tmp_path, engines=["openvino-int8"], arms=arms)
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"budget": Budget()})})
    assert sorted((one.student, str(one.precision)) for one in engines_of_arms(recipe)) == [
        ("control", "int8"), ("deployed", "int8"), ("deployed", "mixed"),
    ]  # fmt: skip
    check_options(recipe.model_copy(update={"engines": engines_of_arms(recipe)}))
    alone = recipe_of(tmp_path, baseline="ptq", arms={"ptq": {}})
    check_options(alone.model_copy(update={"engines": engines_of_arms(alone)}))  # no arm trains further


# --- results ----------------------------------------------------------------------------------------------------------

GAINS = {"ptq": -0.03, "control": 0.0, "qat": 0.01, "qat+kd": 0.02}


def measured(run: StudyRun) -> dict[str, Details]:
    """Return a run whose engines are 0.01 below its float network, OpenVINO's 0.005 lower yet."""
    miou = 0.5 + 0.01 * run.seed + GAINS[run.arm]
    training = {"steps": 5, "precision": "32-true", "device": "cpu"} if run.stage != "student" else {}
    found = {run.stage: Details(params=1000, training=training), run.score: Details(metrics={"miou": miou + 0.01})}
    scores = {"onnxruntime-int8": miou, "openvino-int8": miou - 0.005}
    return found | {f"evaluate/{name}": Details(metrics={"miou": scores[name]}) for name in run.engines}


def summary(folder: Path, lost: dict[tuple[str, int, str], NoResult] | None = None, **settings: Any) -> Study:
    recipe = recipe_of(folder, **settings)
    results: list[tuple[StudyRun, Any]] = [
        (run, NoResult("failed", "no memory") if (run.arm, run.seed) == ("qat", 5) else measured(run))
        for run in runs_of(recipe, folder)
    ]
    for run, result in results:
        for (arm, seed, engine), reason in (lost or {}).items():
            if (run.arm, run.seed) == (arm, seed):
                result[f"evaluate/{engine}"] = reason
    teacher = {"teacher": Details(params=5000), "evaluate/teacher": Details(metrics={"miou": 0.61})}
    return summarize(recipe, teacher, results)  # type: ignore[arg-type]


def test_each_engine_of_each_arm_is_a_row_compared_with_the_same_engine_of_the_control(tmp_path: Path) -> None:
    study = summary(tmp_path)
    arms = {arm.name: arm for arm in study.arms}
    assert list(arms) == [
        *(f"{arm} onnxruntime-int8" for arm in GAINS), *(f"{arm} openvino-int8" for arm in GAINS), "ptq, float", "control, float",
    ]  # fmt: skip
    assert study.baseline == "control onnxruntime-int8"
    assert study.steps == 5
    for engine in ("onnxruntime-int8", "openvino-int8"):
        assert arms[f"control {engine}"].metrics["miou"].difference is None
        difference = arms[f"qat+kd {engine}"].metrics["miou"].difference
        assert difference is not None
        assert difference.by_seed == pytest.approx([0.02, 0.02])
    assert arms["qat openvino-int8"].metrics["miou"].n == 1
    assert [run.status for run in arms["qat openvino-int8"].runs] == ["measured", "failed"]
    assert arms["control, float"].metrics["miou"].mean == pytest.approx(0.555)  # 0.50 + mean of 0.04 and 0.05, + 0.01


def test_of_one_engine_the_rows_are_called_after_the_arms(tmp_path: Path) -> None:
    study = summary(tmp_path, engines=["openvino-int8"])
    assert [arm.name for arm in study.arms] == [*GAINS, "ptq, float", "control, float"]
    assert [row[-1] for row in rows(study)][2] == "baseline"


def test_the_page_says_what_int8_loses_against_the_controls_float_network(tmp_path: Path) -> None:
    text = markdown(summary(tmp_path))
    assert "5 further steps of each arm that trains" in text
    assert "The runs differ" not in text  # an arm without further training has no device
    assert "mIoU of each engine minus that of `control, float` (trained as long) and that of the same engine" in text
    assert "| arm | - control, float | - ptq | - control | - qat | - qat+kd |" in text
    both = (
        "| qat+kd onnxruntime-int8 | +1.00 [+1.00, +1.00] | +5.00 [+5.00, +5.00] | +2.00 [+2.00, +2.00] | +1.00 | – |"
    )
    assert both in text  # only one seed of `qat` has a score
    assert (
        "| ptq openvino-int8 | -4.50 [-4.50, -4.50] | – | -3.00 [-3.00, -3.00] | -4.00 | -5.00 [-5.00, -5.00] |" in text
    )


def test_the_page_does_not_call_another_baseline_the_control(tmp_path: Path) -> None:
    text = markdown(summary(tmp_path, baseline="ptq"))
    assert "Δ is the difference to the row in the column `compared with`, paired by seed" in text
    assert "mIoU of each engine minus that of `ptq, float` and that of the same engine" in text


def test_a_float_network_is_compared_with_the_float_network_of_the_baseline(tmp_path: Path) -> None:
    study = summary(tmp_path)
    ptq, control = study.float_arms
    difference = ptq.metrics["miou"].difference
    assert difference is not None
    assert difference.by_seed == pytest.approx([-0.03, -0.03])  # against the control's int8 engine it would be -0.02
    assert control.metrics["miou"].difference is None
    against = {row[0]: row[3] for row in rows(study)}
    assert headers(study)[3] == "compared with"
    assert against["ptq, float"] == "control, float"
    assert against["qat openvino-int8"] == "control openvino-int8"
    assert against["control openvino-int8"] == against["control, float"] == "–"
    assert rows(study)[0][:5] == ("teacher", "–", "61.00", "control, float", "+5.50")


def test_float_networks_have_a_baseline_also_where_that_of_the_engines_is_trained_by_qat(tmp_path: Path) -> None:
    study = summary(tmp_path, baseline="qat+kd")
    assert [(arm.name, study.is_baseline(arm)) for arm in study.float_arms] == [
        ("ptq, float", True),
        ("control, float", False),
    ]
    assert "| arm | - ptq, float | - ptq |" in markdown(study)


def test_the_figure_says_against_what_each_difference_is(tmp_path: Path) -> None:
    study = summary(tmp_path)
    figure = draw(study, tmp_path / "study.png")
    assert "control onnxruntime-int8" not in figure.get_suptitle()
    assert "differences of int8 engines, 5 further steps of each arm that trains, 1 to 2 seeds" in figure.get_suptitle()
    same, to_float, *_ = figure.axes
    assert same.get_title() == "mIoU, points (more is better)\nminus the same engine of control"
    assert to_float.get_title() == "mIoU, points (more is better)\nminus control, float"
    assert [label.get_text() for label in same.get_yticklabels()] == [
        *(f"{arm} {engine}" for engine in ("onnxruntime-int8", "openvino-int8") for arm in GAINS), "ptq, float",
    ]  # fmt: skip
    means = {
        round(float(line.get_ydata()[0])): float(line.get_xdata()[0])
        for line in to_float.lines
        if line.get_marker() == "o"
    }
    assert means == pytest.approx({0: -4, 1: -1, 2: 0, 3: 1, 4: -4.5, 5: -1.5, 6: -0.5, 7: 0.5, 8: -3})


def test_a_study_of_detectors_is_drawn_in_map(tmp_path: Path) -> None:
    content = summary(tmp_path).to_dict()
    content["recipe"]["task"] = "detection"
    for arm in content["arms"]:
        arm["metrics"]["map"] = arm["metrics"].pop("miou")
        for run in arm["runs"]:
            if run["status"] == "measured":
                run["metrics"]["map"] = run["metrics"].pop("miou")
    study = Study.model_validate(content)
    figure = draw(study, tmp_path / "study.png")
    assert [axes.get_title().partition(",")[0] for axes in figure.axes] == ["mAP", "mAP", "AP75", "AP75"]
    assert "mAP of each engine minus that of `control, float`" in markdown(study)


def test_an_engine_that_fails_alone_leaves_the_other_scores(tmp_path: Path) -> None:
    reason = NoResult("failed", "engine/openvino-int8 failed: unsupported operator")
    study = summary(tmp_path, lost={("qat+kd", 4, "openvino-int8"): reason})
    arms = {arm.name: arm for arm in study.arms}
    assert [(run.status, run.reason) for run in arms["qat+kd openvino-int8"].runs] == [
        ("failed", "engine/openvino-int8 failed: unsupported operator"), ("measured", ""),
    ]  # fmt: skip
    assert arms["qat+kd onnxruntime-int8"].metrics["miou"].n == 2
    assert arms["qat+kd openvino-int8"].metrics["miou"].n == 1
    assert "- qat+kd openvino-int8 seed 4: engine/openvino-int8 failed: unsupported operator" in markdown(study)


def test_it_is_drawn_and_read_again(tmp_path: Path) -> None:
    study = summary(tmp_path)
    draw(study, tmp_path / "study.png")
    assert Study.model_validate(study.to_dict()) == study

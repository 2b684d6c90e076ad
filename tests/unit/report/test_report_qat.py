"""Quantization-aware training is compared with its control, and recommended only where it is shown to be better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_rows import engine, network

from edgekd.core.artifact import Artifact
from edgekd.evaluate.image_scores import of_all
from edgekd.report.decision import decide
from edgekd.report.line import float_student, stage_line
from edgekd.report.model import Report, Row
from edgekd.report.qat import proven, with_gains
from edgekd.report.score_change import ScoreChange
from edgekd.report.training import Training
from edgekd.report.verdict import findings, quantized_rows
from tests.unit.core.small_recipe import small_recipe
from tests.unit.evaluate.test_object_matches import one_object_images

TRUNK = [network("student", 0.60), network("distilled", 0.65), network("onnx", 0.65)]
FURTHER = [network("control", 0.67), network("qat", 0.66)]


def made(student: str, miou: float, low: float | None, against: str, p50: float = 1.0) -> Row:
    """Return an int8 engine of a further trained student, with the interval of its gain."""
    high = None if low is None else low + 0.01
    gain = ScoreChange(against=against, change=miou - 0.62, low=low, high=high)
    return engine("a", "int8", miou, p50, id=f"a-int8-{student}", student=student, gain=gain)


def control(miou: float = 0.66, low: float | None = 0.01, **more: Any) -> Row:
    return made("control", miou, low, "a-int8", **more)


def qat(miou: float = 0.67, low: float | None = 0.001, against: str = "a-int8-control", **more: Any) -> Row:
    return made("qat", miou, low, against, **more)


PTQ = engine("a", "int8", 0.62, 1.0)


def test_the_control_branches_off_the_deployed_student_and_qat_is_compared_with_its_engine() -> None:
    rows = [*TRUNK, *FURTHER, engine("a", "fp32", 0.65), PTQ, control(), qat()]
    found = [(step.row.id, step.name, step.source.id if step.source else None) for step in stage_line(rows).steps]
    assert found[3:] == [
        ("a-fp32", "compilation", "onnx"),
        ("a-int8", "int8 quantization", "a-fp32"),
        ("control", "further training", "distilled"),
        ("qat", "quantization-aware training", "control"),
        ("a-int8-control", "int8 quantization", "control"),
        ("a-int8-qat", "quantization-aware training", "a-int8-control"),
    ]


def test_without_a_control_more_training_and_qat_are_one_step_from_the_float_network() -> None:
    rows = [*TRUNK, FURTHER[1], PTQ, qat(against="a-int8")]
    step = stage_line(rows).steps[-1]
    assert step.source is TRUNK[1]
    assert step.name == "further training and quantization-aware training and int8 quantization"


def test_the_float_network_of_both_is_the_controls() -> None:
    rows = [*TRUNK, *FURTHER]
    assert [float_student(rows, one) for one in ("qat", "control", "deployed")] == [FURTHER[0], FURTHER[0], TRUNK[1]]


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([PTQ, control(), qat()], ["a-int8-qat"]),
        ([PTQ, control(), qat(low=-0.001)], ["a-int8-control"]),  # not shown to be better
        ([PTQ, control(), qat(low=None)], ["a-int8-control"]),  # no interval: few images
        ([PTQ, control(low=-0.001), qat(low=-0.001)], ["a-int8"]),
        ([PTQ, control(0.60, low=-0.03), qat(0.61)], ["a-int8"]),  # better than a control that got worse
        ([PTQ, control(0.60, low=-0.03), qat(0.63)], ["a-int8-qat"]),
        ([PTQ, qat(against="a-int8", low=None)], ["a-int8"]),  # no control
        ([engine("a", "fp32", 0.65), PTQ], ["a-fp32", "a-int8"]),
        ([engine("a", "int8", 0.6, student="qat")], ["a-int8"]),  # the recipe's only engine
    ],
)
def test_of_engines_that_differ_in_their_student_one_may_be_deployed(rows: list[Row], chosen: list[str]) -> None:
    assert [row.id for row in proven(rows)] == chosen


def test_where_the_engine_of_the_control_failed_that_of_qat_is_not_proven() -> None:
    failed = control().model_copy(update={"score": None})
    unknown = qat().model_copy(update={"gain": ScoreChange(against="a-int8-control")})
    assert proven([PTQ, unknown], [PTQ, failed, unknown]) == [PTQ]
    assert proven([unknown], [failed, unknown]) == [unknown]  # nothing simpler is there


def test_a_faster_engine_of_an_unproven_student_is_not_chosen() -> None:
    rows = [*TRUNK, *FURTHER, engine("a", "int8", 0.645, 2.0), control(low=-0.01, p50=1.5), qat(low=-0.01, p50=1.0)]
    report = Report(schema="edgekd.report/1", rows=rows)
    (decision,) = decide(report, {})
    assert decision.row is not None
    assert decision.row.id == "a-int8"
    assert "the interval over the images shows it" in decision.rule


def test_the_verdict_names_the_gain_over_the_control_and_its_float_network() -> None:
    rows = [*TRUNK, *FURTHER, PTQ, control(), qat()]
    found = next(one for one in findings(rows, stage_line(rows), {}) if "aware" in one.headline)
    assert found.tone == "good"
    assert found.headline == "Quantization-aware training: +5.0 points mIoU over its control (a-int8-qat)"
    assert "a-int8-control 66.0 → a-int8-qat 67.0 %, +5.0 points (+0.1 to +1.1)." in found.text
    assert "in float it has 67.0 %" in found.text


def test_with_several_engines_the_headline_and_its_tone_are_about_all_of_them() -> None:
    other = qat(0.65, low=-0.001).model_copy(update={"id": "b-int8-qat", "target": "b"})
    rows = [*TRUNK, *FURTHER, PTQ, control(), qat(), other]
    found = next(one for one in findings(rows, stage_line(rows), {}) if "aware" in one.headline)
    assert found.headline == "Quantization-aware training: +3.0 to +5.0 points mIoU over its control on 2 engines"
    assert found.tone == "unknown"  # one of them is not shown to be better
    better = other.model_copy(update={"gain": qat(0.65).gain})
    rows = [*TRUNK, *FURTHER, PTQ, control(), qat(), better]
    assert next(one for one in findings(rows, stage_line(rows), {}) if "aware" in one.headline).tone == "good"


def test_a_training_that_the_budget_made_needless_claims_no_gain() -> None:
    rows = [*TRUNK, *FURTHER, PTQ, control(low=0.0), qat(low=0.0)]
    training = {"qat": Training(budget="a holds the budget: a-int8 loses 0.20 points mIoU, limit 0.50")}
    found = next(one for one in findings(rows, stage_line(rows), training) if "aware" in one.headline)
    assert found.headline == "Quantization-aware training: not needed"
    assert "Budget: a holds the budget: a-int8 loses 0.20 points mIoU, limit 0.50." in found.text


def test_without_a_control_the_verdict_claims_nothing() -> None:
    gain = ScoreChange(against="a-int8")
    rows = [*TRUNK, PTQ, engine("a", "int8", 0.67, id="a-int8-qat", student="qat", gain=gain)]
    found = next(one for one in findings(rows, stage_line(rows), {}) if "aware" in one.headline)
    assert found.headline == "Quantization-aware training: not compared with a control"


def test_the_score_that_qat_keeps_is_of_the_controls_float_network_and_its_speed_of_the_fp32_engine() -> None:
    rows = [*TRUNK, *FURTHER, engine("a", "fp32", 0.65, 2.0), PTQ, control(), qat()]
    texts = [row.score.text for row in quantized_rows(rows)]
    assert texts == [
        "−3.0 points, 95.4 % kept",
        "−1.0 points, 98.5 % kept of control",
        "0.0 points, 100.0 % kept of control",
    ]


@pytest.mark.parametrize(("student", "label"), [("qat", "a-int8-qat"), ("control", "a-int8-control")])
def test_the_label_names_the_student(student: str, label: str) -> None:
    assert engine("a", "int8", 0.6, id=f"a-int8-{student}", student=student).label == label
    assert engine("a", "int8", 0.6, id="lean", student=student).label == f"lean (a int8 {student})"


def test_the_gain_of_a_detector_has_an_interval_over_the_images(tmp_path: Path) -> None:
    """40 of 60 objects are found instead of 30, on the same images: QAT is better, and its engine may be deployed."""
    recipe = small_recipe(
        tmp_path, task="detection", qat={"train": {"steps": 2}},
        engines=[{"target": "onnxruntime", "precision": "int8"}],
        teacher={"family": "edgedet", "variant": "s", "floor": 0.4, "train": {"steps": 20}},
        student={"family": "edgedet", "variant": "n", "train": {"steps": 10}},
    )  # fmt: skip
    rows, artifacts = [], {}
    for student, right in (("deployed", 30), ("control", 30), ("qat", 40)):
        images = one_object_images(right, 60 - right)
        row_id = "onnxruntime-int8" + ("" if student == "deployed" else f"-{student}")
        score = of_all(images)["map"]
        rows.append(
            Row(id=row_id, stage="engine", task="detection", student=student, metrics={"map": score}, images_sha256="a")
        )
        folder = tmp_path / row_id
        folder.mkdir()
        np.savez(folder / "image_counts.npz", **images.arrays())
        artifacts[f"evaluate/{row_id}"] = Artifact(folder, {})
    report = with_gains(Report(schema="edgekd.report/1", task="detection", rows=rows), recipe, artifacts)
    gain = report.rows[-1].gain
    assert gain is not None
    assert gain.change == pytest.approx((67 - 51) / 101)  # recall 2/3 reaches 67 of 101 points, 1/2 reaches 51
    assert gain.is_better
    assert [row.id for row in proven(report.rows)] == ["onnxruntime-int8-qat"]

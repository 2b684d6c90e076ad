"""The verdict says what the numbers say: gain, loss, unequal budget, kept accuracy, speed, and what is not known."""

from __future__ import annotations

import pytest
from report_rows import engine, network

from edgekd.report.latency import RatioInterval, SpeedRatio
from edgekd.report.line import stage_line
from edgekd.report.model import Report, Row
from edgekd.report.study_interval import StudyInterval
from edgekd.report.table import table_rows
from edgekd.report.training import Training
from edgekd.report.verdict import Cell, Finding, findings, quantized_rows

EQUAL = {name: Training(steps=100, batch_size=8) for name in ("student", "distilled")}


def verdict(rows: list[Row], training: dict[str, Training] | None = None) -> list[Finding]:
    return findings(rows, stage_line(rows), EQUAL if training is None else training)


def test_one_seed_is_never_green_or_red_and_carries_points_images_and_budget() -> None:
    found = verdict([network("student", 0.60, 0.40, 96), network("distilled", 0.627, 0.435, 96)])[0]
    assert (found.tone, found.headline) == ("unknown", "Distillation: +2.7 points mIoU on one seed")
    for part in ("60.0 → 62.7 %", "40.0 → 43.5 % (+3.5 points)", "on 96 images", "100 steps of 8 images", "One seed"):
        assert part in found.text
    lost = verdict([network("student", 0.62), network("distilled", 0.60)])[0]
    assert (lost.tone, lost.headline) == ("unknown", "Distillation: −2.0 points mIoU on one seed")


@pytest.mark.parametrize(
    ("low", "high", "tone"), [(0.002, 0.02, "good"), (-0.01, 0.02, "unknown"), (-0.02, -0.001, "bad")]
)
def test_the_interval_of_a_study_decides(low: float, high: float, tone: str) -> None:
    rows = [network("student", 0.60), network("distilled", 0.63)]
    found = findings(rows, stage_line(rows), EQUAL, StudyInterval(5, (low + high) / 2, low, high))[0]
    assert found.tone == tone
    assert "5 seeds" in found.headline
    assert ("no measurable difference" in found.text) == (tone == "unknown")


def test_a_run_of_a_study_without_a_baseline_of_its_own_has_the_interval() -> None:
    rows = [network("distilled", 0.63)]
    found = findings(rows, stage_line(rows), EQUAL, StudyInterval(5, 0.02, 0.01, 0.03))[0]
    assert (found.tone, found.headline) == ("good", "Distillation: +2.0 points mIoU (+1.0 to +3.0, 5 seeds)")
    assert found.text.endswith("This run has no student.")


def test_an_unequal_budget_is_told_and_never_called_good() -> None:
    training = {"student": Training(steps=100, batch_size=8), "distilled": Training(steps=200, batch_size=8)}
    rows = [network("student", 0.60), network("distilled", 0.70)]
    found = findings(rows, stage_line(rows), training, StudyInterval(5, 0.02, 0.01, 0.03))[0]
    assert found.tone == "bad"
    assert "not compared at equal budget" in found.headline
    assert "200 of 8, so the comparison is not fair" in found.text


def test_an_unrecorded_budget_is_not_called_equal() -> None:
    found = verdict([network("student", 0.60), network("distilled", 0.70)], {})[0]
    assert "The training budgets are not recorded" in found.text


def test_different_image_counts_are_told() -> None:
    found = verdict([network("student", 0.60, images=5), network("distilled", 0.70, images=96)])[0]
    assert "different numbers of images (5 and 96)" in found.text


def test_a_missing_baseline_leaves_the_question_open_with_the_reason() -> None:
    found = verdict([network("student", None), network("distilled", 0.6)])[0]
    assert found.tone == "unknown"
    assert "not measured (stopped before)" in found.text


def speed(low: float, high: float) -> SpeedRatio:
    return SpeedRatio(against="a-fp32", rounds=15, wall=RatioInterval(ratio=(low + high) / 2, low=low, high=high))


def test_int8_that_keeps_99_percent_and_is_surely_faster_is_good_in_both() -> None:
    rows = [engine("a", "fp32", 0.600), engine("a", "int8", 0.597, speed=speed(2.2, 2.3))]
    (found,) = quantized_rows(rows)
    assert (found.score, found.speed) == (
        Cell("good", "−0.3 points, 99.5 % kept"),
        Cell("good", "2.25× as fast (2.20 to 2.30)"),
    )


def test_int8_that_keeps_less_or_is_surely_slower_is_bad_in_that() -> None:
    (found,) = quantized_rows([engine("a", "fp32", 0.60), engine("a", "int8", 0.59, speed=speed(0.7, 0.9))])
    assert (found.score.tone, found.speed) == ("bad", Cell("bad", "0.80× the speed: slower (0.70 to 0.90)"))


def test_a_machine_that_is_not_quiet_has_no_coloured_verdict_on_speed() -> None:
    noisy = engine("a", "int8", 0.60, p50=4.0, speed=speed(0.9, 2.1), warnings=["engine time drifted by +97 %"])
    (found,) = quantized_rows([engine("a", "fp32", 0.60, p50=9.0), noisy])
    assert found.speed == Cell("unknown", "not decided: machine not quiet (0.90 to 2.10× the speed)")


def test_a_report_without_rounds_has_a_ratio_and_no_verdict() -> None:
    (found,) = quantized_rows([engine("a", "fp32", 0.60, p50=9.0), engine("a", "int8", 0.60, p50=4.0)])
    assert found.speed == Cell("unknown", "not decided, no interval was recorded (2.25× the speed)")


def test_int8_is_never_compared_with_another_board() -> None:
    rows = [engine("a", "fp32", 0.60, p50=9.0), engine("a", "int8", 0.60, p50=4.0, board="jetson")]
    (found,) = quantized_rows(rows)
    assert (found.speed.tone, found.compared) == ("unknown", "fp32 or fp16 engine of a on jetson")
    assert found.note == "This run has no fp32 or fp16 engine of a on jetson."


def test_int8_is_compared_with_fp16_where_a_target_has_no_fp32() -> None:
    rows = [network("onnx", 0.60), engine("rknn", "fp16", 0.59, p50=10.0), engine("rknn", "int8", 0.40, p50=5.0)]
    (int8,) = quantized_rows(rows)
    assert (int8.compared, int8.score) == ("rknn-fp16", Cell("bad", "−19.0 points, 67.8 % kept"))
    assert verdict(rows)[-1].headline == "Largest accuracy loss: int8 quantization, rknn-int8"
    assert [(step.name, step.source.precision) for step in stage_line(rows).steps[1:]] == [
        ("compilation in fp16", "fp32"),
        ("int8 quantization", "fp16"),
    ]


def test_an_engine_that_was_timed_and_not_scored_has_no_verdict_on_accuracy() -> None:
    timed = {"status": "measured", "reason": "not scored"}
    rows = [engine("a", "fp32", None, p50=9.0, **timed), engine("a", "int8", None, p50=4.5, **timed)]
    (found,) = quantized_rows(rows)
    assert found.score == Cell("unknown", "–")
    assert [row.note for row in table_rows(Report(schema="edgekd.report/1", rows=rows))] == ["not scored"] * 2


def test_each_int8_engine_is_judged_against_the_first_fp32_engine_of_its_target() -> None:
    rows = [
        engine("a", "fp32", 0.60, p50=8.0, size_bytes=400),
        engine("a", "fp32", 0.50, p50=2.0, id="streams"),
        engine("a", "int8", 0.60, p50=4.0, size_bytes=100),
        engine("a", "int8", 0.45, p50=2.0, id="tuned"),
    ]
    default, tuned = quantized_rows(rows)
    assert (default.row.label, default.compared, default.smaller) == ("a-int8", "a-fp32", "4.00×")
    assert (tuned.row.label, tuned.compared, tuned.score.text) == (
        "tuned (a int8)",
        "a-fp32",
        "−15.0 points, 75.0 % kept",
    )
    assert verdict(rows)[-1].headline == "Largest accuracy loss: int8 quantization, tuned (a int8)"


def test_an_engine_that_failed_leaves_its_question_open_with_the_reason() -> None:
    crashed = engine("a", "int8", None, status="failed", reason="the compiler ended by SIGSEGV")
    (int8,) = quantized_rows([engine("a", "fp32", 0.60, p50=8.0), crashed])
    assert (int8.score.tone, int8.speed.tone) == ("unknown", "unknown")
    assert int8.note == "a-int8: failed (the compiler ended by SIGSEGV)."


def test_different_image_counts_of_an_engine_are_told() -> None:
    other = engine("a", "int8", 0.60).model_copy(update={"num_images": 96})
    (found,) = quantized_rows([engine("a", "fp32", 0.60), other])
    assert found.note == "measured on different numbers of images (10 and 96)"


def test_the_largest_loss_closes_the_verdict() -> None:
    found = verdict([network("onnx", 0.60), engine("a", "fp32", 0.60), engine("a", "int8", 0.50)])[-1]
    assert found.headline == "Largest accuracy loss: int8 quantization, a-int8"

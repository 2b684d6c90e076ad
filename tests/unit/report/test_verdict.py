"""The verdict says what the numbers say: gain, loss, unequal budget, kept accuracy, speed, and what is not known."""

from __future__ import annotations

from report_rows import engine, network

from edgekd.report.line import stage_line
from edgekd.report.model import Report, Row, Training
from edgekd.report.table import table_rows
from edgekd.report.verdict import Finding, findings

EQUAL = {name: Training(steps=100, batch_size=8) for name in ("student", "distilled")}


def verdict(rows: list[Row], training: dict[str, Training] | None = None) -> list[Finding]:
    return findings(rows, stage_line(rows), EQUAL if training is None else training)


def test_a_gain_at_equal_budget_is_good_and_carries_points_images_budget_and_the_seed_caveat() -> None:
    found = verdict([network("student", 0.60, 0.40, 96), network("distilled", 0.627, 0.435, 96)])[0]
    assert found.tone == "good"
    assert found.headline == "Distillation gained 2.7 points mIoU at equal budget"
    for part in (
        "60.0 → 62.7 %",
        "40.0 → 43.5 % (+3.5 points)",
        "on 96 images",
        "100 steps of 8 images",
        "single seed",
    ):
        assert part in found.text


def test_a_loss_is_called_a_loss() -> None:
    found = verdict([network("student", 0.62), network("distilled", 0.60)])[0]
    assert (found.tone, found.headline) == ("bad", "Distillation lost 2.0 points mIoU at equal budget")


def test_a_gain_that_costs_boundaries_is_not_called_good() -> None:
    found = verdict([network("student", 0.60, 0.45), network("distilled", 0.62, 0.44)])[0]
    assert found.tone == "plain"
    assert "−1.0 points" in found.text


def test_an_unequal_budget_is_told_and_never_called_good() -> None:
    training = {"student": Training(steps=100, batch_size=8), "distilled": Training(steps=200, batch_size=8)}
    found = verdict([network("student", 0.60), network("distilled", 0.70)], training)[0]
    assert found.tone == "bad"
    assert "at equal budget" not in found.headline
    assert "200 of 8, so the comparison is not fair" in found.text


def test_an_unrecorded_budget_is_not_called_equal() -> None:
    found = verdict([network("student", 0.60), network("distilled", 0.70)], {})[0]
    assert "at equal budget" not in found.headline
    assert "not recorded" in found.text


def test_different_image_counts_are_told() -> None:
    found = verdict([network("student", 0.60, images=5), network("distilled", 0.70, images=96)])[0]
    assert "different numbers of images (5 and 96)" in found.text


def test_a_missing_baseline_leaves_the_question_open_with_the_reason() -> None:
    found = verdict([network("student", None), network("distilled", 0.6)])[0]
    assert found.tone == "unknown"
    assert "not measured (stopped before)" in found.text


def test_int8_that_keeps_99_percent_and_is_faster_is_good() -> None:
    found = verdict([engine("a", "fp32", 0.600, p50=9.0), engine("a", "int8", 0.597, p50=4.0)])[1]
    assert found.tone == "good"
    assert found.headline == "a: int8 keeps 99.5 % of the fp32 mIoU and is 2.25× as fast"
    assert "9.00 → 4.00 ms in the same run" in found.text


def test_int8_that_is_slower_or_keeps_less_is_bad() -> None:
    slower = verdict([engine("a", "fp32", 0.60, p50=4.0), engine("a", "int8", 0.60, p50=5.0)])[1]
    worse = verdict([engine("a", "fp32", 0.60, p50=9.0), engine("a", "int8", 0.59, p50=4.0)])[1]
    assert (slower.tone, worse.tone) == ("bad", "bad")
    assert "is slower (0.80× the speed)" in slower.headline


def test_a_warning_of_the_bench_reaches_the_verdict() -> None:
    noisy = engine("a", "int8", 0.60, p50=4.0, warnings=["engine time drifted by +97 %"])
    assert "not quiet" in verdict([engine("a", "fp32", 0.60, p50=9.0), noisy])[1].text


def test_int8_is_never_compared_with_another_board() -> None:
    found = verdict([engine("a", "fp32", 0.60, p50=9.0), engine("a", "int8", 0.60, p50=4.0, board="jetson")])[1]
    assert found.tone == "unknown"
    assert found.headline == "a on jetson: the cost of int8 is not known"


def test_int8_is_compared_with_fp16_where_a_target_has_no_fp32() -> None:
    rows = [network("onnx", 0.60), engine("rknn", "fp16", 0.59, p50=10.0), engine("rknn", "int8", 0.40, p50=5.0)]
    _, int8, loss = verdict(rows)
    assert int8.tone == "bad"
    assert int8.headline == "rknn: int8 keeps 67.8 % of the fp16 mIoU and is 2.00× as fast"
    assert loss.headline == "Largest loss: int8 quantization, rknn int8"
    assert [(step.name, step.source.precision) for step in stage_line(rows).steps[1:]] == [
        ("compilation in fp16", "fp32"),
        ("int8 quantization", "fp16"),
    ]


def test_an_engine_that_was_timed_and_not_scored_has_a_speed() -> None:
    timed = {"status": "measured", "reason": "not scored"}
    rows = [engine("a", "fp32", None, p50=9.0, **timed), engine("a", "int8", None, p50=4.5, **timed)]
    found = verdict(rows)[1]
    assert (found.tone, found.headline) == ("unknown", "a: int8 is 2.00× as fast")
    assert [row.note for row in table_rows(Report(schema="edgekd.report/1", rows=rows))] == ["not scored"] * 2


def test_each_int8_engine_is_judged_against_the_first_fp32_engine_of_its_target_and_named_by_its_id() -> None:
    rows = [
        engine("a", "fp32", 0.60, p50=8.0),
        engine("a", "fp32", 0.50, p50=2.0, id="streams"),
        engine("a", "int8", 0.60, p50=4.0),
        engine("a", "int8", 0.45, p50=2.0, id="tuned"),
    ]
    _, default, tuned, loss = verdict(rows)
    assert default.headline == "a: int8 keeps 100.0 % of the fp32 mIoU and is 2.00× as fast"
    assert tuned.headline == "tuned: int8 keeps 75.0 % of the fp32 mIoU and is 4.00× as fast"
    assert tuned.text.startswith("Against a fp32: ")
    assert loss.headline == "Largest loss: int8 quantization, tuned (a int8)"


def test_an_engine_that_failed_leaves_its_question_open_with_the_reason() -> None:
    crashed = engine("a", "int8", None, status="failed", reason="the compiler ended by SIGSEGV")
    _, int8, _ = verdict([engine("a", "fp32", 0.60, p50=8.0), crashed])
    assert (int8.tone, int8.headline) == ("unknown", "a: the cost of int8 is not known")
    assert int8.text == "a int8: failed (the compiler ended by SIGSEGV)."


def test_the_largest_loss_closes_the_verdict() -> None:
    found = verdict([network("onnx", 0.60), engine("a", "fp32", 0.60), engine("a", "int8", 0.50)])[-1]
    assert found.headline == "Largest loss: int8 quantization, a int8"

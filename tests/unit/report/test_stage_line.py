"""The line compares each stage with the right one, names every step, and blames the step that lost most."""

from __future__ import annotations

import subprocess
import sys

import pytest
from report_rows import engine, network

from edgekd.report.line import reference_of, stage_line
from edgekd.report.model import Row

TRUNK = [network("teacher", 0.80), network("student", 0.60), network("distilled", 0.65), network("onnx", 0.65)]


def steps(rows: list[Row]) -> list[tuple[str, str, str | None]]:
    return [(step.row.id, step.name, step.source.id if step.source else None) for step in stage_line(rows).steps]


def test_every_step_is_named_and_compared_with_the_stage_before_it() -> None:
    rows = [*TRUNK, engine("a", "fp32", 0.65), engine("a", "int8", 0.64), engine("b", "fp32", 0.65)]
    assert steps(rows) == [
        ("teacher", "", None),
        ("student", "capacity gap", "teacher"),
        ("distilled", "distillation", "student"),
        ("onnx", "export", "distilled"),
        ("a-fp32", "compilation", "onnx"),
        ("a-int8", "int8 quantization", "a-fp32"),
        ("b-fp32", "compilation", "onnx"),
    ]


def test_deltas_are_differences_of_miou() -> None:
    deltas = [step.delta for step in stage_line([*TRUNK, engine("a", "fp32", 0.64)]).steps]
    assert deltas == [None, *(pytest.approx(value) for value in (-0.20, 0.05, 0.0, -0.01))]


def test_an_int8_engine_is_compared_with_the_fp32_engine_listed_after_it() -> None:
    rows = [*TRUNK, engine("a", "int8", 0.64), engine("a", "fp32", 0.65)]
    assert ("a-int8", "int8 quantization", "a-fp32") in steps(rows)


def test_the_same_target_on_another_board_has_its_own_branch() -> None:
    rows = [*TRUNK, engine("a", "fp32", 0.65), engine("a", "int8", 0.60, board="jetson")]
    assert steps(rows)[-1] == ("a-int8", "compilation and int8 quantization", "onnx")


def test_every_fp32_engine_of_a_target_is_a_compilation_and_the_first_is_the_reference() -> None:
    rows = [*TRUNK, engine("a", "int8", 0.64), engine("a", "fp32", 0.65), engine("a", "fp32", 0.63, id="streams")]
    assert steps(rows)[4:] == [
        ("a-fp32", "compilation", "onnx"),
        ("a-int8", "int8 quantization", "a-fp32"),
        ("streams", "compilation", "onnx"),
    ]
    assert reference_of(rows, ("a", "local")) is rows[5]
    assert reference_of(rows, ("a", "jetson")) is None


def test_the_reference_is_measured_where_an_engine_of_its_precision_is() -> None:
    failed = engine("a", "fp32", None, id="broken", status="failed", reason="crashed")
    rows = [*TRUNK, failed, engine("a", "fp32", 0.65), engine("a", "int8", 0.64)]
    assert steps(rows)[4:] == [
        ("a-fp32", "compilation", "onnx"),
        ("broken", "compilation", "onnx"),
        ("a-int8", "int8 quantization", "a-fp32"),
    ]
    assert reference_of([failed, rows[-1]], ("a", "local")) is failed


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (engine("a", "int8", 0.6), "a-int8"),
        (engine("a", "int8", 0.6, id="a-int8@pi", board="pi"), "a-int8@pi"),
        (engine("a", "int8", 0.6, id="tuned", board="pi"), "tuned (a int8 on pi)"),
        (Row(id="bare", stage="engine"), "bare"),
        (network("student", 0.6), "student"),
        (Row(id="new", stage="of-a-later-version"), "new"),
    ],
)
def test_a_label_shows_the_id_of_an_engine_only_where_it_says_more_than_target_and_precision(
    row: Row, label: str
) -> None:
    assert row.label == label


def test_a_stage_that_was_not_measured_joins_its_name_to_the_next_step() -> None:
    rows = [*TRUNK[:3], network("onnx", None), engine("a", "fp32", 0.63)]
    line = stage_line(rows)
    assert [(step.name, step.delta) for step in line.steps[3:]] == [
        ("export", None),
        ("export and compilation", pytest.approx(-0.02)),
    ]


def test_without_a_baseline_gap_and_gain_cannot_be_told_apart() -> None:
    line = stage_line([TRUNK[0], TRUNK[2]])
    assert line.steps[1].name == "capacity gap and distillation"
    assert line.steps[1].delta == pytest.approx(-0.15)


def test_the_sentence_names_the_largest_loss_and_the_largest_after_training() -> None:
    sentence = stage_line([*TRUNK, engine("a", "fp32", 0.65), engine("a", "int8", 0.642)]).sentence
    assert "Largest loss: capacity gap, teacher → student: −20.0 points" in sentence
    assert "After training: int8 quantization, a-fp32 → a-int8: −0.8 points" in sentence


def test_no_loss_is_said_to_be_no_loss() -> None:
    line = stage_line([network("student", 0.5), network("distilled", 0.6)])
    assert line.largest_loss is None
    assert line.sentence == "No step loses mIoU."


@pytest.mark.parametrize("rows", [[], [network("teacher", 0.8)], [network("teacher", None), network("student", None)]])
def test_a_line_without_two_measurements_attributes_nothing(rows: list[Row]) -> None:
    assert "cannot say where accuracy is lost" in stage_line(rows).sentence


def test_line_and_table_import_neither_jinja2_nor_pillow() -> None:
    code = "import sys, edgekd.report.line, edgekd.report.table; print(sorted({'jinja2', 'PIL', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )

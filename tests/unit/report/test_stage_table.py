"""The wall time by stage: the table on demand, the chart, and rows that were not measured."""

from __future__ import annotations

from sample_report import sample_file

from edgekd.report.model import Report
from edgekd.report.stage_table import StageRow, headers, stage_chart, stage_rows


def test_the_table_has_each_engine_with_its_stages_and_sums() -> None:
    rows = stage_rows(Report.model_validate(sample_file()))
    assert [row.id for row in rows] == ["openvino-fp32", "openvino-int8", "onnxruntime-fp32", "onnxruntime-int8"]
    # wall 6.3, engine 4.07: 2.23 ms around it, two thirds before and one third behind
    assert rows[1] == StageRow(
        "openvino-int8", "2.00", "1.49", "4.07", "0.743", "6.30", "8.30", "–", "120", "8.14", "150 MB", "90.0 MB"
    )


def test_the_last_stage_is_called_after_the_result() -> None:
    assert [headers(task).result for task in ("semantic", "detection", "instance")] == ["class map", "boxes", "masks"]


def test_without_files_and_footprint_there_are_dashes() -> None:
    content = sample_file()
    for row in content["rows"]:
        row.pop("footprint", None)
        for key in ("stages_ms", "sums_ms"):
            row.get(key, {}).pop("decode", None), row.get(key, {}).pop("file_in", None)
    row = stage_rows(Report.model_validate(content))[0]
    assert (row.decode, row.file_in, row.load, row.peak) == ("–", "–", "–", "–")
    assert row.array_in == "11.9"


def test_the_chart_says_its_numbers_and_leaves_out_what_was_not_measured() -> None:
    report = Report.model_validate(sample_file())
    chart = stage_chart(report.rows, report.task)
    assert "openvino-int8 decode 2.00 ms, prepare 1.49 ms, engine 4.07 ms, class map 0.743 ms" in chart
    assert "teacher" not in chart
    assert stage_chart([row for row in report.rows if row.stage != "engine"], report.task) == ""

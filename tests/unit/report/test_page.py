"""The page says what the report says: the verdict, the line, withheld numbers, and nothing that was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sample_report import sample_report, write_sample_data

from edgekd.core.task_metrics import TASKS
from edgekd.report.html import render, shown_metrics
from edgekd.report.line import stage_line
from edgekd.report.table import table_rows


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return render(sample_report(), write_sample_data(folder))


def test_the_page_needs_no_network(page: str) -> None:
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page)
    assert "@import" not in page
    assert "url(http" not in page


def test_every_row_of_the_report_is_on_the_page_with_its_miou_in_percent(page: str) -> None:
    for row in sample_report()["rows"]:
        assert row["id"] in page
        if row["status"] == "measured":
            assert f"{100 * row['metrics']['miou']:.1f}" in page


def test_every_definition_is_on_the_page(page: str) -> None:
    for entry in sample_report()["definitions"].values():
        assert entry["title"] in page


def test_what_a_runtime_says_of_itself_is_on_the_page(page: str) -> None:
    said = "runtime: openvino; version: 1.2.3 &lt;test&gt;; threads: 2"
    assert page.count(said) == 2  # openvino fp32 and int8


def test_means_over_different_classes_are_told(page: str, tmp_path: Path) -> None:
    assert "Means over different classes" not in page
    report = sample_report()
    report["rows"][5]["iou_per_class"]["never seen"] = 0.0
    text = render(report, tmp_path)
    assert "no label is of class never seen, and openvino int8 took pixels for it" in re.sub(r"\s+", " ", text)


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    report = sample_report() | {"title": "<script>alert(1)</script>"}
    assert "<script>alert(1)</script>" not in render(report, tmp_path)


def test_repaired_labels_are_named_with_their_split(page: str, tmp_path: Path) -> None:
    report = sample_report() | {"repairs": {"train": {"boxes cut at the image's edge": 3, "rows <b>": 1}}}
    said = "Labels of the split “train” were repaired when they were read: 3 boxes cut at the image&#39;s edge, 1 rows &lt;b&gt;."
    assert said in render(report, tmp_path)
    assert "were repaired" not in page


def test_a_stopped_run_is_told_as_such_and_nothing_is_invented(tmp_path: Path) -> None:
    report = sample_report()
    for row in report["rows"]:
        for key in ("metrics", "latency_ms", "wall_ms", "iou_per_class"):
            row.pop(key, None)
        row |= {"status": "not measured", "reason": "the run was stopped before"}
    text = render(report, tmp_path)
    assert "the run was stopped before" in text


def _rows(**miou: float) -> list[dict]:
    stages = {"teacher": "teacher", "student": "student", "distilled": "distilled", "onnx-fp32": "onnx"}
    return [
        {
            "id": name.replace("_", "-"),
            "stage": stages.get(name.replace("_", "-"), "engine"),
            "target": name.split("_")[0] if "_" in name else "torch",
            "precision": name.split("_")[-1] if "_" in name else "fp32",
            "method": "bckd",
            "metrics": {"miou": value},
            "status": "measured",
        }
        for name, value in miou.items()
    ]


def test_the_line_names_quantization_when_it_lost_most() -> None:
    rows = _rows(
        teacher=0.80, student=0.78, distilled=0.79, onnx_fp32=0.79, openvino_fp32=0.79, openvino_int8=0.60
    )  # fmt: skip
    worst = stage_line(rows).largest_loss
    assert worst is not None
    assert worst.row.id == "openvino-int8"
    assert worst.delta == pytest.approx(-0.19)


def test_the_table_has_one_line_per_row_and_dashes_for_what_was_not_measured() -> None:
    report = sample_report()
    cells = table_rows(report)
    assert [row.id for row in cells] == [row["id"] for row in report["rows"]]
    teacher = next(row for row in cells if row.id == "teacher")
    assert teacher.p50_ms == "–"


def test_the_first_columns_are_what_the_task_is_judged_by() -> None:
    known = ["map", "map_50", "mask_map", "boundary_map", "of_a_plugin"]
    assert shown_metrics(known, TASKS["instance"]) == ["mask_map", "boundary_map", "map", "map_50", "of_a_plugin"]
    assert shown_metrics(["map_50", "map_75", "map"], TASKS["detection"]) == ["map", "map_75", "map_50"]

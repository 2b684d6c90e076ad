"""The lines below the result table: the ceiling of the score, and what looks wrong with the data."""

from __future__ import annotations

from typing import Any

from sample_report import sample_file

from edgekd.report.model import Report
from edgekd.report.table import notes


def report(**changes: Any) -> Report:
    return Report.model_validate(sample_file() | changes)


def test_a_clean_report_has_no_notes() -> None:
    assert notes(report()) == []


def test_the_budget_of_mixed_engines_and_of_the_training_stands_below_the_table() -> None:
    rows = sample_file()["rows"]
    (row,) = (one for one in rows if one["id"] == "openvino-int8")
    row["budget"] = {"metric": "miou", "max_drop": 0.01, "images": 8, "selection_drop": 0.002, "scored_drop": 0.012,
                     "floats": ["a"], "layers": 9, "float_macs_share": 0.25}  # fmt: skip
    training = {"qat": {"steps": 5, "budget": "a misses the budget: a-int8 failed, limit 1.00"}}
    assert notes(report(rows=rows, training=training)) == [
        "openvino-int8: 1 of 9 layers in float (25.0\u00a0% of the MACs); drop in points mIoU: 0.20 on 8 selection images, "
        "1.20 on the scored split, limit 1.00",
        "budget: a misses the budget: a-int8 failed, limit 1.00: students trained further",
    ]


def test_the_ceiling_and_the_first_of_several_findings_stand_below_the_table() -> None:
    rows = sample_file()["rows"]
    for row in rows[:3]:
        row["ceilings"] = {"miou": 0.891, "mar_100": 0.898}
    found = [
        {"code": code, "text": f"{code} in 3 images", "count": 3, "first": "a.png"} for code in ("one", "two", "three")
    ]
    assert notes(report(rows=rows, findings=found, recipe={"evaluate": {"max_detections": 100}})) == [
        "ceiling: 89.1 % mIoU, as perfect labels score with evaluate.max_detections 100",
        "data: one in 3 images (and 2 more, see the report)",
    ]
    assert notes(report(findings=found[:1])) == ["data: one in 3 images"]

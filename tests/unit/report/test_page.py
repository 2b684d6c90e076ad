"""The page says what the report says: the verdict, the line, withheld numbers, and nothing that was not measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_rows import engine, network
from sample_report import sample_file, sample_report, write_sample_data

from edgekd.core.task_metrics import TASKS
from edgekd.report.html import render, shown_metrics
from edgekd.report.line import stage_line
from edgekd.report.machine_text import environment_sentence
from edgekd.report.model import Report, Row
from edgekd.report.table import table_rows

pytestmark = pytest.mark.slow  # each test draws a dozen charts


def changed(**changes: Any) -> Report:
    """Return the sample report with other values of some keys of its file."""
    return Report.model_validate(sample_file() | changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return render(sample_report(), write_sample_data(folder))


def test_the_page_needs_no_network(page: str) -> None:
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page)
    assert "@import" not in page
    assert "url(http" not in page


def test_every_row_of_the_report_is_on_the_page_with_its_miou_in_percent(page: str) -> None:
    for row in sample_file()["rows"]:
        assert row["id"] in page
        assert f"{100 * row['metrics']['miou']:.1f}" in page


def test_every_definition_is_on_the_page(page: str) -> None:
    for entry in sample_file()["definitions"].values():
        assert entry["title"] in page


def test_what_a_runtime_says_of_itself_is_on_the_page(page: str) -> None:
    said = "runtime: openvino; version: 1.2.3 &lt;test&gt;; threads: 2"
    assert page.count(said) == 2  # openvino fp32 and int8


def test_means_over_different_classes_are_told(page: str, tmp_path: Path) -> None:
    assert "Means over different classes" not in page
    rows = sample_file()["rows"]
    rows[5]["iou_per_class"]["never seen"] = 0.0
    text = render(changed(rows=rows), tmp_path)
    assert "no label is of class never seen, and openvino-int8 took pixels for it" in re.sub(r"\s+", " ", text)


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    assert "<script>alert(1)</script>" not in render(changed(title="<script>alert(1)</script>"), tmp_path)


def test_repaired_labels_are_named_with_their_split(page: str, tmp_path: Path) -> None:
    report = changed(repairs={"train": {"boxes cut at the image's edge": 3, "rows <b>": 1}})
    said = "Labels of the split “train” were repaired when they were read: 3 boxes cut at the image&#39;s edge, 1 rows &lt;b&gt;."
    assert said in render(report, tmp_path)
    assert "were repaired" not in page


def test_what_looks_wrong_with_the_data_and_the_ceiling_stand_beside_the_scores(page: str, tmp_path: Path) -> None:
    rows = sample_file()["rows"]
    rows[0]["ceilings"] = {"miou": 0.891}
    found = [{"code": "small_objects", "text": "21 objects of <train>", "count": 21, "first": "a.jpg"}]
    text = render(changed(rows=rows, findings=found, recipe={"evaluate": {"max_detections": 100}}), tmp_path)
    results = text[text.index('<section id="results">') : text.index('<section id="speed">')]
    assert "<li>21 objects of &lt;train&gt;</li>" in results
    assert "Ceiling 89.1 % mIoU." in results
    assert "more objects than the 100 detections per image that are scored" in results
    assert "Ceiling" not in page
    assert "wrong with the data" not in page


def test_steps_without_a_label_are_told(page: str, tmp_path: Path) -> None:
    training = sample_file()["training"]
    training["teacher"]["zero_loss_steps"] = 7
    said = f"teacher: the task loss was exactly 0 in 7 of {training['teacher']['steps']} steps, which taught nothing."
    assert said in render(changed(training=training), tmp_path)
    assert "exactly 0" not in page


def test_a_stopped_run_is_told_as_such_and_nothing_is_invented(tmp_path: Path) -> None:
    rows = sample_file()["rows"]
    for row in rows:
        for key in ("metrics", "latency_ms", "wall_ms", "iou_per_class"):
            row.pop(key, None)
        row |= {"status": "not measured", "reason": "the run ended before this step"}
    text = render(changed(rows=rows), tmp_path)
    assert text.count("not measured: the run ended before this step") == len(rows)


def test_engines_with_ids_of_their_own_have_rows_histograms_and_pictures_of_their_own(tmp_path: Path) -> None:
    """Two engines of one target and precision: one has the default id; the other is slower and worse, and has pictures."""
    folder = write_sample_data(tmp_path, pictures=1)
    for name in ("samples", "pictures"):
        with np.load(folder / f"{name}.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        own = {re.sub("(^|/)openvino-int8(/|$)", r"\1tuned\2", key): value for key, value in arrays.items()}
        np.savez(folder / f"{name}.npz", **arrays | {key: value for key, value in own.items() if key not in arrays})
    rows = sample_file()["rows"]
    tuned = rows[5] | {"id": "tuned", "metrics": {"miou": 0.5}}
    text = render(changed(rows=[*rows, tuned]), folder)
    assert '<th scope="row">tuned (openvino int8)' in text
    assert text.count("<text") > 0
    assert len(re.findall("tuned \\(openvino int8\\), 600 runs", text)) == 4  # engine and wall time, desktop and phone
    assert "by tuned (openvino int8): " in text  # the picture of the worst int8 engine
    assert "by openvino-int8: " in text  # and that of the engine to deploy
    assert "by onnxruntime-int8: " not in text


def test_the_page_says_how_many_images_calibrated_the_quantized_models(page: str, tmp_path: Path) -> None:
    assert "Int8 is calibrated on 64 images of the split “train”, which is not scored." in page
    rows = sample_file()["rows"]
    for row, count in zip((rows[5], rows[7]), (64, 8), strict=True):
        row["calibration"] = {"split": "train", "count": count, "seed": 0}
    text = render(changed(rows=rows), tmp_path)
    assert "Int8 is calibrated on 8 to 64 images of the split “train”, which is not scored." in text


def test_a_failed_engine_has_its_reason_in_its_row_and_is_named_at_the_top(tmp_path: Path) -> None:
    rows = sample_file()["rows"]
    rows[5] = {key: rows[5][key] for key in ("id", "stage", "target", "precision")}
    rows[5] |= {"status": "failed", "reason": "the compiler ended by SIGSEGV"}
    text = render(changed(rows=rows), tmp_path)
    assert "failed: the compiler ended by SIGSEGV" in text
    assert "Failed: openvino-int8. The reasons are in the table." in text
    assert "Not measured:" not in text


def test_the_line_names_quantization_when_it_lost_most() -> None:
    rows: list[Row] = [network("teacher", 0.80), network("student", 0.78), network("distilled", 0.79)]
    rows += [network("onnx", 0.79), engine("openvino", "fp32", 0.79), engine("openvino", "int8", 0.60)]
    worst = stage_line(rows).largest_loss
    assert worst is not None
    assert worst.row.id == "openvino-int8"
    assert worst.delta == pytest.approx(-0.19)


def test_the_table_has_one_line_per_row_and_dashes_for_what_was_not_measured() -> None:
    report = sample_report()
    cells = table_rows(report)
    assert [row.id for row in cells] == [row.id for row in report.rows]
    teacher = next(row for row in cells if row.id == "teacher")
    assert teacher.p50_ms == "–"


def test_the_first_columns_are_what_the_task_is_judged_by() -> None:
    known = ["map", "map_50", "mask_map", "boundary_map", "of_a_plugin"]
    assert shown_metrics(known, TASKS["instance"]) == ["mask_map", "boundary_map", "map", "map_50", "of_a_plugin"]
    assert shown_metrics(["map_50", "map_75", "map"], TASKS["detection"]) == ["map", "map_75", "map_50"]


def test_the_environment_is_one_sentence_with_the_runtimes_of_the_rows() -> None:
    facts = {"cpu_model": "Test CPU", "usable_cores": 2, "memory_bytes": 8_000_000_000, "os": "Test OS", "python": "3.11.7",
             "virtualized": True, "packages": {"torch": "2.0", "openvino": "2026.4.1", "numpy": "2.0"}}  # fmt: skip
    assert environment_sentence(changed(environment=facts)) == (
        "Made on Test CPU, 2 cores, 8.00 GB memory, Test OS, in a virtual machine, with Python 3.11.7, torch 2.0, openvino 2026.4.1."
    )
    assert environment_sentence(changed(environment={})) == ""


def test_the_first_screen_has_the_engine_its_cost_and_the_command(page: str) -> None:
    first = page[page.index('<section id="deploy">') : page.index('<section id="verdict">')]
    assert '<h1 class="headline">Deploy openvino-int8</h1>' in first
    assert "<b>−9.8 points</b> mIoU (62.6\u00a0% against 72.4\u00a0%)" in first
    assert "/engine/openvino-int8 --board NAME" in first
    assert "among those at most 1 point mIoU below the float network" in first


def test_no_board_s_decision_is_made_where_no_engine_holds(tmp_path: Path) -> None:
    rows = sample_file()["rows"]
    for row in rows[4:]:
        row["metrics"]["miou"] = 0.5
    text = render(changed(rows=rows), tmp_path)
    assert '<h1 class="headline">No engine is recommended</h1>' in text
    assert "loses −12.8 points" in text

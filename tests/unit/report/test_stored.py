"""A stored report is checked before it is printed: what is malformed is one line that says where, what is whole is unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sample_report import sample_file, sample_report

from edgekd.board.installation import update
from edgekd.cli.show import print_results
from edgekd.core.task_metrics import TASKS
from edgekd.errors import UserError
from edgekd.report.html import render
from edgekd.report.model import Report, Row
from edgekd.report.stored import read_report

STORED = Path(__file__).parent / "stored"  # reports of runs made before the models


def read_changed(folder: Path, **changes: Any) -> Report:
    """Return the sample report as it is read from a file with other values of some keys."""
    (folder / "report.json").write_text(json.dumps(sample_file() | changes))
    return read_report(folder)


def unknown_keys(part: BaseModel) -> list[str]:
    """Return the keys of a part, and of the parts in it, that the model does not have."""
    found = list(part.model_extra or {})
    for _, value in part:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        found += [key for one in inner if isinstance(one, BaseModel) for key in unknown_keys(one)]
    return found


@pytest.mark.parametrize("file", sorted(STORED.glob("*.json")), ids=lambda file: file.stem)
def test_a_report_of_before_the_models_is_read_whole_and_written_again_without_loss(file: Path, tmp_path: Path) -> None:
    report = read_report(file)
    content = json.loads(file.read_text())
    assert unknown_keys(report) == []
    assert json.loads(report.to_json()) == content
    assert [row.id for row in report.rows] == [row["id"] for row in content["rows"]]
    first, last = report.rows[0], report.rows[-1]
    metric = TASKS[content["task"]].metric
    assert first.score == content["rows"][0]["metrics"][metric]
    assert last.p50_ms == content["rows"][-1]["latency_ms"]["p50"]
    assert list(last.per_class) == content["classes"]
    assert "latency_ms" not in first.to_dict()
    print_results(report)
    assert f"{100 * (last.score or 0):.1f}" in render(report, tmp_path)


def test_a_whole_report_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_changed(tmp_path).to_dict() == sample_file()
    assert read_report(tmp_path / "report.json") == sample_report()


def test_a_report_with_nothing_in_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema": "edgekd.report/1"}')
    print_results(read_report(tmp_path))
    render(read_report(tmp_path), tmp_path)


def test_null_is_read_as_nothing(tmp_path: Path) -> None:
    optional = [key for key in sample_file() if key != "schema"]
    assert read_changed(tmp_path, **dict.fromkeys(optional)).rows == []
    row = {"id": "a"} | dict.fromkeys(name for name in Row.model_fields if name != "id")
    (read,) = read_changed(tmp_path, rows=[row]).rows
    assert (read.status, read.metrics, read.latency_ms, read.size_bytes) == ("not measured", {}, None, None)


def test_a_number_that_is_not_finite_is_no_number(tmp_path: Path) -> None:
    row = {"id": "a", "metrics": {"miou": float("nan")}, "latency_ms": {"p50": float("inf")}}
    (read,) = read_changed(tmp_path, rows=[row]).rows
    assert (read.score, read.p50_ms) == (None, None)
    assert read.to_dict() == {"id": "a", "metrics": {"miou": None}, "latency_ms": {"p50": None}}


def test_keys_of_a_later_edgekd_are_kept(tmp_path: Path) -> None:
    row = {"id": "a", "power_mw": {"mean": 900}}
    assert read_changed(tmp_path, rows=[row], sensors=["x"]).to_dict() == sample_file() | {
        "rows": [row],
        "sensors": ["x"],
    }


def test_rows_know_the_task_of_their_report_and_do_not_store_it(tmp_path: Path) -> None:
    (row,) = read_changed(tmp_path, task="detection", rows=[{"id": "a", "metrics": {"map": 0.5, "miou": 0.1}}]).rows
    assert (row.score, row.score_title, row.second_title) == (0.5, "mAP", "AP75")
    assert "task" not in row.to_dict()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": "edgekd.report/2"}', f"a newer edgekd wrote it; update this one: {update()}"),
        (
            '{"schema": "edgekd.study/1"}',
            "expected a report with schema edgekd.report/1, got 'edgekd.study/1'; give the",
        ),
        ('{"schema": ["edgekd.report/1"]}', "expected a report with schema edgekd.report/1"),
        ("[]", "expected a report with schema edgekd.report/1, got None"),
        ("{", "not a readable report.json"),
        ("[" * 100_000, "not a readable report.json"),
    ],
)
def test_a_file_of_another_kind_or_version_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError) as refusal:
        read_report(tmp_path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": [{}]}, "rows.0.id: Field required"),
        ({"rows": {}}, "rows: Input should be"),
        ({"rows": [{"id": "a", "metrics": {"miou": "high"}}]}, "rows.0.metrics.miou: Input should be a valid number"),
        ({"rows": [{"id": "a", "latency_ms": 3}]}, "rows.0.latency_ms: Input should be"),
        ({"task": "pose"}, "task: Value error, expected semantic, detection, instance"),
        ({"stages": [{"name": "x"}]}, "stages.0.seconds: Field required"),
        (
            {"stages": [{"name": "x", "seconds": "2", "skipped": True}]},
            "stages.0.seconds: Input should be a valid number",
        ),
        ({"gates": [{"name": "x", "passed": "no", "text": ""}]}, "gates.0.passed: Input should be a valid boolean"),
        ({"gates": [{"name": "x", "passed": True}]}, "gates.0.text: Field required"),
        ({"training": {"student": {"curve": [[1]]}}}, "training.student.curve.0"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refusal:
        read_changed(tmp_path, **change)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


_JSON = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.just([]) | st.just({}) | st.just([{}])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


_PLACES = [place for place in _places(sample_file()) if place and place != ("schema",)]


@given(st.sampled_from(_PLACES), _JSON)
def test_any_change_of_one_value_is_refused_or_printed(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    report = sample_file()
    node: Any = report
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    file = tmp_path_factory.mktemp("stored") / "report.json"
    file.write_text(json.dumps(report))
    try:
        read = read_report(file)
    except UserError:
        return
    print_results(read)


def test_brackets_in_a_reason_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(id="a", status="failed", reason="pip install 'edgekd[export]', see [/run/log]")
    print_results(Report(schema="edgekd.report/1", rows=[row]))
    assert "edgekd[export]', see [/run/log]" in " ".join(capsys.readouterr().out.split())

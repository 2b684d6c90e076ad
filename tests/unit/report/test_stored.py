"""A stored report is checked before it is printed: what is malformed is one line that says where, what is whole is unchanged."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_report import sample_report

from edgekd.cli.show import print_results
from edgekd.errors import UserError
from edgekd.report.html import render
from edgekd.report.stored import read_report


def test_a_whole_report_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(sample_report()))
    assert read_report(tmp_path) == sample_report()
    (tmp_path / "report.json").write_text('{"schema": "edgekd.report/1"}')
    print_results({"task": "semantic"} | read_report(tmp_path))
    render(read_report(tmp_path), tmp_path)


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
    (tmp_path / "report.json").write_text(json.dumps(sample_report() | change))
    with pytest.raises(UserError) as refusal:
        read_report(tmp_path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


_JSON = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.just([]) | st.just({}) | st.just([{}])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


_PLACES = [place for place in _places(sample_report()) if place and place != ("schema",)]


@given(st.sampled_from(_PLACES), _JSON)
def test_any_change_of_one_value_is_refused_or_printed(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    report = copy.deepcopy(sample_report())
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
    row = {"id": "a", "status": "failed", "reason": "pip install 'edgekd[export]', see [/run/log]"}
    print_results({"task": "semantic", "rows": [row]})
    assert "edgekd[export]', see [/run/log]" in " ".join(capsys.readouterr().out.split())

"""Energy, sustained load and states of machines in the report: table, page, picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import ArtifactError
from edgekd.report.html import render
from edgekd.report.long_runs import energy_text, read_timelines, state_tables, sustained_text, timelines_of
from edgekd.report.model import Report, Row
from edgekd.report.table import notes
from tests.unit.report.sample_report import sample_file, write_sample_data

METER = {
    "meter": "VDD_IN", "scope": "the module's input", "method": "trapezoid", "gross_mj": 450.0, "net_mj": 200.0, "reason": "",
    "idle_before_w": 5.0, "busy_w": 9.0, "idle_after_w": 5.1, "uncertainty": 0.02, "frames": 600, "seconds": 30.0, "distinct": 151,
}  # fmt: skip
SUSTAINED = {
    "seconds": 600.0, "runs": 50_000, "window_s": 60.0, "first_p50_ms": 10.0, "last_p50_ms": 15.0, "last_p99_ms": 16.0,
    "ratio": 1.5, "throttled_after_s": 150.2, "signs": ["cooling: devfreq-gpu rose from 0 to 1"], "hottest": "gpu-thermal",
    "start_c": 40.0, "end_c": 71.5, "slope_k_per_min": 0.3, "is_steady": True, "cool_down": "cooled down to 41.0 °C in 12 s",
}  # fmt: skip
TIMELINE = {
    "second": list(range(600)),
    "p50_ms": [10.0 if second < 150 else 15.0 for second in range(600)],
    "p99_ms": [10.5 if second < 150 else 16.0 for second in range(600)],
    "sensors": {
        "temp_c/gpu-thermal": [min(71.5, 40 + second / 5) for second in range(600)],
        "temp_c/cpu-thermal": [45.0] * 599 + [None],
        "clock_mhz/ga10b": [918.0 if second < 150 else 612.0 for second in range(600)],
        "clock_mhz/cpu policy0": [1984.0] * 600,
        "power_w/VDD_IN": [9.0] * 600,
        "load/ga10b": [1.0] * 600,
    },
}


def file_with_long_runs() -> dict[str, Any]:
    """Return the sample report with energy and sustained latency of two of its engines, and with a board's state."""
    content = sample_file()
    rows = {row["id"]: row for row in content["rows"]}
    rows["openvino-int8"].update(
        energy={"meters": [METER], "reason": ""},
        sustained=SUSTAINED,
        sampling={"fraction": 0.004, "spread": 0.002, "rounds": 5},
    )
    rows["openvino-int8"]["latency_ms"]["p50"] = 10.0
    withheld = {**METER, "gross_mj": None, "net_mj": None, "reason": "the idle powers before and after differ by 16%"}
    rows["openvino-fp32"].update(energy={"meters": [withheld], "reason": ""})
    rows["onnxruntime-fp32"].update(energy={"meters": [], "reason": "no power sensor readable: nothing at /sys"})
    before = {
        "readings": {"temp_c/soc": 40.0, "power_w/VDD_IN": 5.0},
        "unreadable": {"energy_j/p": "/sys/x: root only"},
    }
    after = {"readings": {"temp_c/soc": 70.25, "power_w/VDD_IN": 9.0}, "clocks_locked": True}
    content["boards"] = {"orin": {"state": {"before": before, "after": after}}, "pi": {}}
    return content


@pytest.fixture
def page(tmp_path: Path) -> str:
    folder = write_sample_data(tmp_path / "data", pictures=1)
    (folder / "timelines.json").write_text(json.dumps({"openvino-int8": TIMELINE}))
    return render(Report.model_validate(file_with_long_runs()), folder)


def test_the_page_has_energy_sustained_load_and_states_in_words(page: str) -> None:
    for text in (
        '<td class="more">450 / 200</td>',  # column of the results table
        "withheld: the idle powers before and after differ by 16%",
        "no power sensor readable: nothing at /sys",
        "the module&#39;s input",
        '<td class="more">15.0 (1.50×)</td>',  # bursts had 10 ms
        "gpu-thermal 40.0 to 71.5",
        "after 150 s: cooling: devfreq-gpu rose from 0 to 1; before it: cooled down to 41.0 °C in 12 s",
        "openvino-int8 +0.4 % (± 0.2)",
        "State of board orin",
        '<tr><th scope="row">power</th><td class="reason">VDD_IN 5.00 W</td><td class="reason">VDD_IN 9.00 W</td></tr>',
        '<th scope="row">clocks locked</th><td class="reason">–</td><td class="reason">yes</td>',
        "energy_j/p: /sys/x: root only",
    ):
        assert text in page, text
    assert "State of board pi" not in page


def test_the_timeline_is_drawn_for_both_widths_with_its_numbers_in_words(page: str) -> None:
    name = (
        'aria-label="openvino-int8: sustained load: p50 10.0 ms at first, 15.0 ms at last, 1.50×; first sign of throttling after '
        "150 s: cooling: devfreq-gpu rose from 0 to 1; clock, MHz at the end: ga10b 612.0, cpu policy0 1984.0; temperature, °C at "
        'the end: gpu-thermal 71.5, cpu-thermal 45.0; power, W at the end: VDD_IN 9.0"'
    )
    assert page.count(name) == 2


def test_a_report_without_long_runs_has_no_such_section(tmp_path: Path) -> None:
    folder = write_sample_data(tmp_path, pictures=1)
    page = render(Report.model_validate(sample_file()), folder)
    assert 'id="power"' not in page
    assert "gross / net mJ" not in page


def test_rows_say_their_energy_and_their_sustained_latency() -> None:
    rows = {row.id: row for row in Report.model_validate(file_with_long_runs()).rows}
    assert energy_text(rows["openvino-int8"]) == "450 / 200"
    assert energy_text(rows["openvino-fp32"]) == "the idle powers before and after differ by 16%"
    assert energy_text(rows["onnxruntime-fp32"]) == "no power sensor readable: nothing at /sys"
    assert energy_text(rows["teacher"]) == ""
    assert sustained_text(rows["openvino-int8"]) == "15.0 (1.50×)"
    assert sustained_text(rows["teacher"]) == ""
    bare = Row(id="x", sustained={"last_p50_ms": 15.0})
    assert sustained_text(bare) == "15.0"


def test_the_lines_below_the_result_table_have_energy_and_sustained_latency() -> None:
    assert notes(Report.model_validate(file_with_long_runs()))[-3:] == [
        "openvino-fp32: no energy per frame: the idle powers before and after differ by 16%",
        "openvino-int8: energy 450 / 200 mJ gross / net per frame; sustained p50 15.0 ms, 1.50× of the p50, throttled after 150 s",
        "onnxruntime-fp32: no energy per frame: no power sensor readable: nothing at /sys",
    ]
    assert not any("energy" in line or "sustained" in line for line in notes(Report.model_validate(sample_file())))


def test_a_board_without_a_state_has_no_table() -> None:
    tables = state_tables(Report.model_validate(file_with_long_runs()).boards)
    assert [table.board for table in tables] == ["orin"]
    assert tables[0].lines[0] == ("temperatures", "soc 40.0 °C", "soc 70.2 °C")


def test_timelines_of_all_benches_are_put_together(tmp_path: Path) -> None:
    for name, rows in (
        ("bench", {"a": {"timeline": TIMELINE}, "b": {"timeline": None}}),
        ("bench@pi", {"a@pi": {"timeline": TIMELINE}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "long_runs.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "bench@orin").mkdir()
    assert list(timelines_of(sorted(tmp_path.iterdir()))) == ["a", "a@pi"]


def test_damaged_timelines_are_named(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"a": {"second": "x"}}'):
        (tmp_path / "timelines.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"timelines\.json: damaged"):
            read_timelines(tmp_path / "timelines.json")

"""The charts: scales map ends to ends, ticks are round, nothing is drawn without data, markup from outside is escaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_rows import engine, network

from edgekd.report import figures, svg
from edgekd.report.distributions import Runs, latency_figure, suppressed
from edgekd.report.line import line_of
from edgekd.report.rows import Latency, read_rows
from edgekd.report.scatter import scatter_figure

NASTY = '<b>"x" & y</b>'


def _well_formed(markup: str) -> list[ElementTree.Element]:
    """Return the elements of the markup; a parser refuses what is not closed or not escaped."""
    return list(ElementTree.fromstring(f"<all>{markup}</all>").iter())


def _texts(markup: str) -> list[str]:
    return [element.text or "" for element in _well_formed(markup) if element.tag == "text"]


def test_a_linear_and_a_logarithmic_scale_map_ends_to_ends_and_the_middle_to_the_middle() -> None:
    assert [svg.Scale(0, 10, 100, 200)(value) for value in (0, 5, 10)] == [100, 150, 200]
    assert [svg.Scale(1, 100, 0, 50, is_log=True)(value) for value in (1, 10, 100)] == pytest.approx([0, 25, 50])


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4), st.integers(2, 12))
def test_ticks_lie_inside_the_scale_and_are_not_many_more_than_wanted(low: float, length: float, count: int) -> None:
    ticks = svg.Scale(low, low + length, 0, 1).ticks(count)
    slack = 1e-6 * (abs(low) + length)
    assert all(low - slack <= tick <= low + length + slack for tick in ticks)
    assert len(ticks) <= count + 1


def test_logarithmic_ticks_are_1_2_5() -> None:
    assert svg.Scale(0.9, 21, 0, 1, is_log=True).ticks(5) == pytest.approx([1, 2, 5, 10, 20])


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    rows = read_rows([network("teacher", None), engine("a", "int8", None)])
    assert figures.stage_line_figure(line_of(rows)) == ""
    assert scatter_figure(rows) == ""
    assert figures.class_figure(rows, ["a"]) == ""
    assert figures.curves_figure([]) == ""
    assert latency_figure([Runs(rows[1], None, np.array([]))], "engine time") == ""


def test_the_stage_line_marks_only_the_largest_loss() -> None:
    rows = read_rows([network("teacher", 0.8), network("student", 0.6), network("distilled", 0.59)])
    marked = [text for text in _texts(figures.stage_line_figure(line_of(rows))) if "▼" in text]
    assert len(marked) == 2  # once for the desktop, once for the phone
    assert all("−20.0 capacity gap" in text for text in marked)


def test_hover_text_carries_the_rows_details() -> None:
    markup = scatter_figure(read_rows([engine("a", "int8", 0.6123, p50=4.0) | {"size_bytes": 1_130_000}]))
    title = next(element.text or "" for element in _well_formed(markup) if element.tag == "title")
    assert title.splitlines()[:2] == ["a int8 (a-int8)", "mIoU 61.23 %"]
    assert "engine p50 4.00 ms" in title
    assert "size 1.13 MB" in title


def test_a_faster_engine_is_left_of_a_slower_and_a_better_one_above_a_worse() -> None:
    markup = scatter_figure(read_rows([engine("a", "fp32", 0.7, p50=9.0), engine("a", "int8", 0.6, p50=4.0)]))
    (x0, y0), (x1, y1) = [
        (float(element.get("cx", "nan")), float(element.get("cy", "nan")))
        for element in _well_formed(markup)
        if element.tag == "circle"
    ][:2]
    assert x1 < x0
    assert y1 > y0  # pixels count downwards


def test_a_class_that_never_occurred_is_absent_and_not_zero() -> None:
    row = network("student", 0.5) | {"iou_per_class": {"seen": 0.0, "unseen": None}}
    texts = _texts(figures.class_figure(read_rows([row]), ["seen", "unseen"]))
    assert texts.count("absent") == 2
    assert "0.0" in texts


def test_names_from_a_report_are_escaped_in_every_chart() -> None:
    row = engine(NASTY, "int8", 0.5, p50=4.0) | {"iou_per_class": {NASTY: 0.5}, "precision": '"><script>'}
    rows = read_rows([row])
    latency = Latency(4.0, None, None, 4.0, 3)
    charts = [
        scatter_figure(rows),
        figures.class_figure(rows, [NASTY]),
        latency_figure([Runs(rows[0], latency, np.array([3.0, 4.0, 5.0]))], "engine time"),
        figures.curves_figure([figures.Curve(NASTY, "c-teacher", [(0, 1.0), (1, 0.5)])]),
    ]
    for markup in charts:
        _well_formed(markup)
        assert "<script>" not in markup
        assert not re.search(r"<b>", markup)


def test_withheld_percentiles_are_those_that_are_missing() -> None:
    assert suppressed(Latency(4.0, None, None, 4.0, 30)) == ["p90", "p99"]
    assert suppressed(None) == []


def test_runs_beyond_the_time_axis_are_counted_with_the_slowest() -> None:
    row = read_rows([engine("a", "fp32", 0.5, p50=4.0)])[0]
    samples = np.concatenate([np.linspace(3.9, 4.1, 997), [80.0, 90.0, 100.0]])
    markup = latency_figure([Runs(row, Latency(4.0, 4.08, 4.1, 4.3, 1000), samples)], "engine time")
    assert _texts(markup).count("+3 slower, to 100 ms") == 2

"""The charts: nothing is drawn without data, what is drawn is where it belongs, names from outside stay text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from report_rows import engine, network

from edgekd.report import charts
from edgekd.report.charts import Curve, Runs, suppressed
from edgekd.report.html import classes_with_curves
from edgekd.report.line import stage_line
from edgekd.report.model import Latency

NASTY = '<b>"x" & y $x_1$</b>'
SVG = "{http://www.w3.org/2000/svg}"


def elements(markup: str) -> list[ElementTree.Element]:
    """Return the elements of the markup; a parser refuses what is not closed or not escaped."""
    return list(ElementTree.fromstring(f"<all>{markup}</all>").iter())


def texts(markup: str) -> list[str]:
    return ["".join(element.itertext()) for element in elements(markup) if element.tag == "text"]


def runs_of(samples: np.ndarray, latency: Latency | None) -> list[Runs]:
    return [Runs(engine("a", "fp32", 0.5, p50=4.0), latency, samples)]


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    rows = [network("teacher", None), engine("a", "int8", None)]
    assert charts.stage_line_chart(stage_line(rows)) == ""
    assert charts.scatter_chart(rows) == ""
    assert charts.class_chart(rows, ["a"], "IoU") == ""
    assert charts.precision_chart(rows, "a") == ""
    assert charts.curves_chart([]) == ""
    assert charts.validation_chart([], "mIoU") == ""
    assert charts.latency_chart([Runs(rows[1], None, np.array([]))], "engine time") == ""


def test_every_chart_is_drawn_for_a_desktop_and_for_a_phone_with_the_numbers_in_its_name() -> None:
    markup = charts.scatter_chart([engine("a", "int8", 0.6123, p50=4.0)])
    drawn = [element for element in elements(markup) if element.tag == "svg"]
    assert [element.get("class") for element in drawn] == ["chart wide", "chart narrow"]
    assert {element.get("aria-label") for element in drawn} == {"mIoU against engine latency: a-int8 61.2 % at 4.00 ms"}


def test_the_validation_is_drawn_in_percent_and_ends_with_its_last_score() -> None:
    markup = charts.validation_chart([Curve("student", "student", [(200, 0.31), (400, 0.4236)])], "mIoU")
    assert {element.get("aria-label") for element in elements(markup) if element.tag == "svg"} == {
        "mIoU during training: student 42.4 % at step 400"
    }
    assert "mIoU, %" in texts(markup)


def test_the_same_numbers_give_the_same_markup() -> None:
    rows = [engine("a", "fp32", 0.7, p50=9.0), engine("a", "int8", 0.6, p50=4.0)]
    assert charts.scatter_chart(rows) == charts.scatter_chart(rows)


def test_the_stage_line_marks_only_the_largest_loss() -> None:
    rows = [network("teacher", 0.8), network("student", 0.6), network("distilled", 0.59)]
    shown = texts(charts.stage_line_chart(stage_line(rows)))
    marked = [text for text in shown if "▼" in text]
    assert len(marked) == 2  # once for the desktop, once for the phone
    assert all("−20.0 capacity gap" in text for text in marked)
    assert shown.count("59.0") == 2


def test_a_faster_engine_is_left_of_a_slower_and_a_better_one_above_a_worse() -> None:
    markup = charts.scatter_chart([engine("a", "fp32", 0.7, p50=9.0), engine("a", "int8", 0.6, p50=4.0)])
    drawn = next(element for element in elements(markup) if element.tag == "svg")
    at = {}
    for use in drawn.iter("use"):
        style = use.get("style", "")
        for name in ("fp32", "int8"):
            if f"fill: var(--{name})" in style:
                at.setdefault(name, (float(use.get("x", "nan")), float(use.get("y", "nan"))))
    assert at["int8"][0] < at["fp32"][0]
    assert at["int8"][1] > at["fp32"][1]  # pixels count downwards


def test_a_class_that_never_occurred_is_absent_and_not_zero() -> None:
    row = network("student", 0.5, iou_per_class={"seen": 0.0, "unseen": None})
    shown = texts(charts.class_chart([row], ["seen", "unseen"], "IoU"))
    assert shown.count("absent") == 2
    assert shown.count("0.0") == 2


def test_precision_is_drawn_against_recall_and_its_mean_is_the_ap50() -> None:
    row = network("student", None, precision_at_recall={"cell": [1.0, 0.5, 0.0]})
    markup = charts.precision_chart([row], "cell")
    names = {element.get("aria-label") for element in elements(markup) if element.tag == "svg"}
    assert names == {"cell: precision against recall at IoU 0.5: student AP50 50.0 %"}


def test_of_many_classes_those_have_curves_on_which_the_rows_differ_most() -> None:
    curves = {name: [1.0] for name in "abcdefgh"}
    rows = [
        network(stage, None, precision_at_recall=curves, ap_per_class=dict.fromkeys("abcdefgh", 0.5) | more)
        for stage, more in (("student", {}), ("distilled", dict.fromkeys("bcdegh", 0.6)))
    ]
    assert classes_with_curves(rows) == list("bcdegh")


def test_names_from_a_report_stay_text_in_every_chart() -> None:
    more = {"iou_per_class": {NASTY: 0.5}, "precision_at_recall": {NASTY: [1.0, 0.5]}}
    rows = [engine(NASTY, '"><script>', 0.5, p50=4.0, **more)]
    latency = Latency(p50=4.0, mean=4.0, n=3)
    drawn = [
        charts.scatter_chart(rows),
        charts.class_chart(rows, [NASTY], "IoU"),
        charts.precision_chart(rows, NASTY),
        charts.latency_chart([Runs(rows[0], latency, np.array([3.0, 4.0, 5.0]))], "engine time"),
        charts.curves_chart([Curve(NASTY, "teacher", [(0, 1.0), (1, 0.5)])]),
        charts.validation_chart([Curve(NASTY, "teacher", [(1, 0.5)])], NASTY),
    ]
    for markup in drawn:
        elements(markup)
        assert "<script>" not in markup
        assert not re.search(r"<b>", markup)
    assert NASTY in texts(drawn[1])  # no mathematics is made of it


def test_withheld_percentiles_are_those_that_are_missing() -> None:
    assert suppressed(Latency(p50=4.0, mean=4.0, n=30)) == ["p90", "p99"]
    assert suppressed(None) == []


def test_runs_beyond_the_time_axis_are_counted_with_the_slowest() -> None:
    samples = np.concatenate([np.linspace(3.9, 4.1, 997), [80.0, 90.0, 100.0]])
    markup = charts.latency_chart(
        runs_of(samples, Latency(p50=4.0, p90=4.08, p99=4.1, mean=4.3, n=1000)), "engine time"
    )
    assert sum("(+3 slower, to 100 ms)" in text for text in texts(markup)) == 2


def test_a_histogram_of_equal_times_is_drawn() -> None:
    assert charts.latency_chart(runs_of(np.full(50, 4.0), None), "engine time").count("<svg") == 2


def test_engines_of_one_target_and_precision_are_classes_with_curves_by_their_ids() -> None:
    rows = [
        engine("a", "fp32", 0.7, p50=9.0),
        engine("a", "fp32", 0.7, p50=6.0, id="streams"),
        engine("a", "int8", 0.6, p50=4.0),
    ]
    markup = charts.scatter_chart(rows)
    name = next(element.get("aria-label") or "" for element in elements(markup) if element.tag == "svg")
    assert "a-fp32 70.0 % at 9.00 ms; streams (a fp32) 70.0 % at 6.00 ms; a-int8 60.0 % at 4.00 ms" in name
    assert "streams" in texts(markup)  # beside its dot, which looks like that of the other fp32 engine
    line = charts.stage_line_chart(stage_line([network("onnx", 0.71), *rows]))
    assert {"a-fp32", "streams (a fp32)", "a-int8"} <= {text.split("\n")[0] for text in texts(line)} | set(texts(line))

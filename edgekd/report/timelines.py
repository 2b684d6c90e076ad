"""The page's part about energy and sustained load, with timelines: latency over clocks, temperatures and power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.report.long_runs import TIMELINES, StateTable, SustainedLatency, Timeline, read_timelines, state_tables
from edgekd.report.model import Report, Row
from edgekd.report.svg import CSS, FG, GRID, SOFT, responsive
from edgekd.report.units import milliseconds, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 4  # lines per panel; more could not be distinguished
_LINES = ("distilled", "student", "int8", "teacher")
# Quantity -> title of its panel.
_PANELS = {"clock_mhz": "clock, MHz", "temp_c": "temperature, °C", "power_w": "power, W"}


@dataclass(frozen=True)
class LongRunsPart:
    """Rows with energy or sustained latency, a chart for each label (SVG), and the states of the boards."""

    rows: list[Row]
    timelines: dict[str, str]
    states: list[StateTable]


@dataclass(frozen=True)
class _Line:
    name: str
    values: np.ndarray  # (N,) float64, NaN without a reading


def long_runs_part(report: Report, data_dir: Path) -> LongRunsPart:
    """Return the page's part; ArtifactError for a damaged data file."""
    read = read_timelines(data_dir / TIMELINES)
    figures = {row.label: timeline_chart(row, read[row.id]) for row in report.rows if row.id in read}
    return LongRunsPart(
        rows=[row for row in report.rows if row.energy or row.sustained],
        timelines={label: figure for label, figure in figures.items() if figure},
        states=state_tables(report.boards),
    )


def timeline_chart(row: Row, timeline: Timeline) -> str:
    """Return latency by the second over clocks, temperatures and power; "" for a run of less than two seconds."""
    if len(timeline.second) < 2 or row.sustained is None:
        return ""
    sustained = row.sustained
    panels = {title: lines for quantity, title in _PANELS.items() if (lines := _lines(timeline, quantity))}
    heights = [1.5, *([1.0] * len(panels))]

    def draw(axes: Axes) -> None:
        figure = axes.get_figure(root=True)
        assert figure is not None
        axes.remove()
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        _latency(grid[0], row, timeline)
        for panel, (title, lines) in zip(grid[1:], panels.items(), strict=True):
            _panel(panel, title, lines)
        for panel in grid:
            panel.grid(axis="y", color=GRID)
            if sustained.throttled_after_s is not None:
                panel.axvline(sustained.throttled_after_s, color=CSS["bad"], linewidth=1.2, linestyle=":")
        grid[-1].set_xlim(0, max(1, timeline.second[-1]))
        grid[-1].set_xlabel("seconds of sustained load")

    return responsive(f"{row.label}: sustained load", _numbers(row, sustained, panels), 1.2 + 1.35 * sum(heights), draw)


def _latency(axes: Axes, row: Row, timeline: Timeline) -> None:
    axes.plot(timeline.second, timeline.p99_ms, color=SOFT, linewidth=1, label="p99 of each second")
    axes.plot(timeline.second, timeline.p50_ms, color=CSS["int8"], linewidth=1.8, label="p50 of each second")
    if row.p50_ms is not None:
        axes.axhline(row.p50_ms, color=FG, linestyle="--", linewidth=1, label="p50 of the bench's bursts")
    axes.set_ylim(0, 1.08 * float(np.quantile(timeline.p99_ms, 0.99)))  # one slow second must not flatten the rest
    axes.set_ylabel("engine time, ms")
    axes.legend(loc="lower left", frameon=False, labelcolor=FG, fontsize=8, ncols=3)


def _panel(axes: Axes, title: str, lines: Sequence[_Line]) -> None:
    for line, color in zip(lines, _LINES, strict=False):
        axes.plot(np.arange(len(line.values)), line.values, color=CSS[color], linewidth=1.6, label=line.name)
    axes.set_ylabel(title)
    axes.margins(y=0.15)
    axes.legend(loc="lower left", frameon=False, labelcolor=FG, fontsize=8, ncols=_MOST_LINES)


def _lines(timeline: Timeline, quantity: str) -> list[_Line]:
    """Return the sensors to draw: the clocks that vary most; for other quantities the highest values."""
    found = []
    for key, values in timeline.sensors.items():
        if key.partition("/")[0] == quantity:
            array = np.array([np.nan if value is None else value for value in values], np.float64)
            if not np.isnan(array).all():
                found.append(_Line(key.partition("/")[2], array))

    def weight(line: _Line) -> float:
        highest, lowest = float(np.nanmax(line.values)), float(np.nanmin(line.values))
        return (highest - lowest) / highest if quantity == "clock_mhz" and highest else highest

    return sorted(found, key=weight, reverse=True)[:_MOST_LINES]


def _numbers(row: Row, sustained: SustainedLatency, panels: dict[str, list[_Line]]) -> list[str]:
    """Return the chart's content as a sentence, for its accessible name."""
    found = [
        f"p50 {milliseconds(sustained.first_p50_ms)} ms at first, {milliseconds(sustained.last_p50_ms)} ms at last"
        + (f", {ratio(sustained.ratio)}" if sustained.ratio is not None else "")
    ]
    if sustained.throttled_after_s is not None:
        found.append(f"first sign of throttling after {sustained.throttled_after_s:.0f} s: {sustained.signs[0]}")
    for title, lines in panels.items():
        ends = (f"{line.name} {_last(line.values):.1f}" for line in lines)
        found.append(f"{title} at the end: {', '.join(ends)}")
    return found


def _last(values: np.ndarray) -> float:
    return float(values[~np.isnan(values)][-1])

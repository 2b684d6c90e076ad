"""The wall time by stage, load time and memory of each engine: rows for the command line and the page, and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.report.latency import STAGES
from edgekd.report.model import Report, Row
from edgekd.report.svg import CSS, FG, NARROW, inches, responsive
from edgekd.report.units import milliseconds, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = {"semantic": "class map", "detection": "boxes", "instance": "masks"}
# Colours of the stages, from the page's palette. In other charts an engine has the colour of its precision.
_COLORS = dict(zip(STAGES, ("fp32", "distilled", "int8", "student"), strict=True))


@dataclass(frozen=True)
class StageRow:
    """One engine; times are medians in milliseconds, ready to print, `–` where nothing was measured.

    array_in, file_in: wall time, and with the decoding of the image file before it.
    stream: images per second with the stages of several images at work together.
    load, first: load time and first run in a separate process; base, peak: its resident memory before loading and at most.
    """

    id: str
    decode: str
    prepare: str
    engine: str
    result: str
    array_in: str
    file_in: str
    stream: str
    load: str
    first: str
    peak: str
    base: str


def headers(task: str) -> StageRow:
    """Return the names of the columns; the name of the last stage depends on the task."""
    return StageRow(
        "id", "decode", "prepare", "engine", RESULTS[task], "array in", "file in", "stream/s", "load ms", "first ms", "peak memory",
        "before loading",
    )  # fmt: skip


def stage_rows(report: Report) -> list[StageRow]:
    """Return the engines whose stages were measured, in the report's order."""
    return [_stage_row(row) for row in report.rows if row.stages_ms]


def _stage_row(row: Row) -> StageRow:
    p50 = {name: milliseconds(row.stages_ms[name].p50 if name in row.stages_ms else None) for name in STAGES}
    sums = [milliseconds(row.sums_ms.get(name)) for name in ("array_in", "file_in")]
    own = row.footprint
    memory = [size(own.peak_bytes if own else None), size(own.base_bytes if own else None)]
    load = [milliseconds(own.load_ms if own else None), milliseconds(own.first_ms if own else None)]
    stream = "–" if row.stream_fps is None else f"{row.stream_fps:.1f}"
    return StageRow(
        row.label,
        **p50,
        array_in=sums[0],
        file_in=sums[1],
        stream=stream,
        load=load[0],
        first=load[1],
        peak=memory[0],
        base=memory[1],
    )


def stage_chart(rows: Sequence[Row], task: str) -> str:
    """Return a stacked bar per engine of its stages' medians; "" when there is nothing to draw."""
    shown = [row for row in rows if row.stages_ms]
    if not shown:
        return ""
    names = [name for name in STAGES if any(name in row.stages_ms for row in shown)]
    titles = {name: RESULTS[task] if name == "result" else name for name in names}

    def draw(axes: Axes) -> None:
        is_narrow = inches(axes) < 2 * NARROW
        for place, row in enumerate(shown):
            left = 0.0
            for name in names:
                value = _median(row, name)
                axes.barh(
                    place, value, 0.6, left, color=CSS[_COLORS[name]], alpha=0.85,
                    label=titles[name] if place == 0 else None,
                )  # fmt: skip
                left += value
            axes.annotate(
                f"{milliseconds(left)} ms", (left, place), (5, 0), textcoords="offset points", va="center", color=FG
            )
        axes.set_yticks(range(len(shown)), [_name(row, is_narrow) for row in shown], parse_math=False)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.margins(x=0.35 if is_narrow else 0.12)
        axes.set_xlabel("median of each stage, ms")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if is_narrow else 4, frameon=False, labelcolor=FG)

    numbers = [
        f"{row.label} " + ", ".join(f"{titles[n]} {milliseconds(_median(row, n))} ms" for n in names) for row in shown
    ]
    return responsive("time by stage", numbers, 0.42 * len(shown) + 1.0, draw)


def _median(row: Row, name: str) -> float:
    latency = row.stages_ms.get(name)
    return (latency.p50 or 0.0) if latency else 0.0


def _name(row: Row, is_narrow: bool) -> str:
    return row.label.replace(" (", "\n(").replace("-", "-\n", 1) if is_narrow else row.label

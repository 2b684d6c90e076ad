"""The charts of the page; `svg.py` draws them.

The accessible name of a chart has its numbers, which are also in the page's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekd.report.line import StageLine, Step, reference_of
from edgekd.report.model import Latency, Row
from edgekd.report.svg import CSS, FG, GRID, NARROW, SOFT, inches, log_axis, plain, responsive
from edgekd.report.units import milliseconds, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENTILES = ("p50", "p90", "p99")  # those that are drawn
TRAINED = ("teacher", "student", "distilled", "control", "qat")  # trainings with curves
_COLORS = {"onnx": "fp32", "control": "other", "qat": "int8"}  # of rows without a colour of their own
_MARKERS = "osD^vP*X"
# The time axis ends after 99 % of the runs and the p99 of every engine. The label counts slower runs: a few of them would
# squeeze all others.
_SHOWN_SHARE = 0.99


@dataclass(frozen=True)
class Runs:
    """Raw runs of one row: `samples_ms` (N,) float64, and the row's own summary of them."""

    row: Row
    latency: Latency | None
    samples_ms: np.ndarray


@dataclass(frozen=True)
class Curve:
    """Learning curve of one training: `points` are (step, loss), or (step, score) of a validation."""

    name: str
    stage: str
    points: list[tuple[float, float]]

    @property
    def color(self) -> str:
        """Colour of the stage."""
        return CSS[_COLORS.get(self.stage, self.stage)]


def color_name(row: Row) -> str:
    """Return the CSS variable of a row's colour: its stage, or an engine's precision."""
    name = row.precision if row.stage == "engine" else _COLORS.get(row.stage, row.stage)
    return name if name in CSS else "other"


def suppressed(latency: Latency | None) -> list[str]:
    """Return the percentiles that the bench withheld: the number of runs cannot carry them."""
    return [] if latency is None else [name for name in PERCENTILES if getattr(latency, name) is None]


# Each of these returns "" when there is nothing to draw.


def stage_line_chart(line: StageLine) -> str:
    """Return the score stage by stage: a dot per row, and a bar from the row that it is compared with."""
    steps = [step for step in line.steps if step.row.score is not None]
    if not any(step.delta is not None for step in steps):
        return ""

    def draw(axes: Axes) -> None:
        heights = {step.row.id: i for i, step in enumerate(steps)}
        for i, step in enumerate(steps):
            value = 100 * (step.row.score or 0)
            if step.source is not None and step.delta is not None:
                start = 100 * (step.source.score or 0)
                loss = (
                    CSS["bad" if step.delta < 0 else "good"] if step.is_deployment else SOFT
                )  # one seed is no verdict
                axes.plot([start, value], [i, i], color=loss, linewidth=6, alpha=0.6, solid_capstyle="butt", zorder=2)
                axes.plot([start, start], [heights[step.source.id], i], ":", color=SOFT, linewidth=1.2)
            axes.plot(value, i, "o", color=CSS[color_name(step.row)], markersize=9, zorder=3)
            axes.annotate(
                percent(step.row.score), (value, i), (6, 5), textcoords="offset points", color=FG, fontweight="bold"
            )  # fmt: skip
        axes.set_yticks(range(len(steps)), [_step_name(line, step) for step in steps], parse_math=False)
        axes.set_ylim(len(steps) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlabel(f"{steps[0].row.score_title}, %")

    numbers = [f"{step.row.label} {percent(step.row.score)} %" for step in steps]
    return responsive(f"{steps[0].row.score_title} of every stage", numbers, 0.5 * len(steps) + 0.8, draw)


def _step_name(line: StageLine, step: Step) -> str:
    if step.delta is None:
        return step.row.label
    return f"{step.row.label}\n{'▼ ' if step is line.largest_loss else ''}{points(step.delta)} {step.name}"


def scatter_chart(rows: Sequence[Row]) -> str:
    """Return the score against engine p50: a dot per engine, a level line for each network without a latency."""
    dots = [row for row in rows if row.score is not None and row.p50_ms]
    if not dots:
        return ""
    levels = [row for row in rows if row.score is not None and not row.p50_ms and row.stage in ("teacher", "student")]
    times = [row.p50_ms or 0.0 for row in dots]
    is_log = max(times) / min(times) > 4
    branches = list(dict.fromkeys(row.branch for row in dots))

    def draw(axes: Axes) -> None:
        for row in dots:
            _dot(axes, row, _MARKERS[branches.index(row.branch) % len(_MARKERS)])
            reference = reference_of(dots, row.branch) or row
            pair = (reference, row)
            axes.plot([r.p50_ms or 0 for r in pair], [100 * (r.score or 0) for r in pair], ":", color=SOFT)
        for row in levels:
            label = plain(f"{row.label}: {percent(row.score)} %")
            axes.axhline(100 * (row.score or 0), linestyle="--", color=CSS[color_name(row)], label=label)
        if is_log:
            log_axis(axes.set_xscale, axes.xaxis)
        else:
            axes.set_xlim(0, 1.15 * max(times))
        axes.margins(y=0.15)
        axes.set_xlabel("engine latency p50, ms per image" + (", log scale" if is_log else ""))
        axes.set_ylabel(f"{dots[0].score_title}, %")
        axes.grid(axis="y", color=GRID)
        columns = 2 if inches(axes) > NARROW else 1
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=columns, frameon=False, labelcolor=FG)

    numbers = [f"{row.label} {percent(row.score)} % at {milliseconds(row.p50_ms)} ms" for row in dots]
    return responsive(f"{dots[0].score_title} against engine latency", numbers, 4.6 + 0.12 * len(dots), draw)


def _dot(axes: Axes, row: Row, marker: str) -> None:
    """Draw one engine, with its id when other engines of its target and precision look like it."""
    time, score = row.p50_ms or 0.0, 100 * (row.score or 0.0)
    label = plain(f"{row.label}: {percent(row.score)} %, {milliseconds(row.p50_ms)} ms")
    axes.plot([time], score, marker, markersize=10, color=CSS[color_name(row)], label=label)
    if not row.has_default_id:
        axes.annotate(row.id, (time, score), (5, 7), textcoords="offset points", fontsize=8, color=SOFT)


def latency_chart(runs: Sequence[Runs], title: str) -> str:
    """Return one histogram per engine on one time axis, with its percentiles marked."""
    shown = [run for run in runs if run.samples_ms.size]
    if not shown:
        return ""
    low, high = min(run.samples_ms.min() for run in shown), max(_shown_end(run) for run in shown)
    is_log = low > 0 and high / low > 8
    pad = max(0.04 * (high - low), 0.01 * high)
    low, high = (low / 1.1, high * 1.1) if is_log else (low - pad, high + pad)
    edges = np.geomspace(low, high, 91) if is_log else np.linspace(low, high, 91)

    def draw(axes: Axes) -> None:
        for i, run in enumerate(shown):
            _histogram(axes, run, edges, base=-float(i))
        if is_log:
            log_axis(axes.set_xscale, axes.xaxis)
        axes.set_xlim(low, high)
        axes.set_ylim(0.98 - len(shown), 1.12)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{title}, ms" + (", log scale" if is_log else ""))

    numbers = [f"{run.row.label} {_percentiles(run)}" for run in shown]
    return responsive(title, numbers, 0.95 * len(shown) + 0.6, draw)


def _histogram(axes: Axes, run: Runs, edges: np.ndarray, base: float) -> None:
    """Draw one engine's histogram from `base` to 0.62 above it, and its name and percentiles over that."""
    counts, _ = np.histogram(run.samples_ms, edges)
    heights = base + 0.62 * counts / max(1, counts.max())
    axes.stairs(heights, edges, baseline=base, fill=True, color=CSS[color_name(run.row)], alpha=0.75)
    axes.axhline(base, color=GRID, linewidth=1)
    for name, style in zip(PERCENTILES, ("-", "--", ":"), strict=True):
        value = getattr(run.latency, name) if run.latency else None
        if value is not None:
            axes.plot([value, value], [base, base + 0.62], style, color=FG, linewidth=1.6)
    late = run.samples_ms[run.samples_ms > edges[-1]]
    more = f" (+{late.size} slower, to {milliseconds(float(late.max()))} ms)" if late.size else ""
    text = f"{run.row.label}, {run.samples_ms.size} runs{more}\n{_percentiles(run)}"
    axes.text(0, base + 0.67, text, transform=axes.get_yaxis_transform(), fontsize=9, color=FG)


def _percentiles(run: Runs) -> str:
    if run.latency is None:
        return "percentiles not recorded"
    return " · ".join(f"{name} {milliseconds(getattr(run.latency, name))}" for name in PERCENTILES) + " ms"


def _shown_end(run: Runs) -> float:
    end = float(np.quantile(run.samples_ms, _SHOWN_SHARE, method="higher"))
    return max(end, run.latency.p99 or 0.0) if run.latency else end


def class_chart(rows: Sequence[Row], classes: Sequence[str], title: str) -> str:
    """Return bars of the score called `title` (IoU, AP), one group per class with one bar per row."""
    shown = [row for row in rows if any(value is not None for value in row.per_class.values())]
    if not shown or not classes:
        return ""
    height = 0.8 / len(shown)

    def draw(axes: Axes) -> None:
        for i, row in enumerate(shown):
            values = [row.per_class.get(name) for name in classes]
            at = np.arange(len(classes)) + (i - (len(shown) - 1) / 2) * height
            bars = axes.barh(at, [100 * (v or 0) for v in values], 0.85 * height, color=CSS[color_name(row)])
            labels = ["absent" if value is None else percent(value) for value in values]
            axes.bar_label(bars, labels, padding=3, fontsize=7, color=SOFT)
        names = [name if len(name) <= 22 else name[:21] + "…" for name in classes]
        axes.set_yticks(range(len(classes)), names, parse_math=False)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlim(0, 108)
        axes.set_xlabel(f"{title}, %")

    numbers = [f"{name}, {row.label} {percent(row.per_class.get(name))} %" for name in classes for row in shown]
    return responsive(f"{title} per class", numbers, (0.16 * len(shown) + 0.12) * len(classes) + 0.6, draw)


def curves_chart(curves: Sequence[Curve]) -> str:
    """Return task loss against step, one line per training."""
    shown = [curve for curve in curves if len(curve.points) > 1]
    if not shown:
        return ""
    losses = [loss for curve in shown for _, loss in curve.points]
    is_log = min(losses) > 0 and max(losses) / min(losses) > 10

    def draw(axes: Axes) -> None:
        for curve in shown:
            axes.plot(*zip(*curve.points, strict=True), color=curve.color, linewidth=1.8)
        if is_log:
            log_axis(axes.set_yscale, axes.yaxis)
        else:
            axes.set_ylim(min(0.0, *losses), None)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("task loss" + (", log scale" if is_log else ""))
        axes.grid(axis="y", color=GRID)

    numbers = [f"{c.name} loss {c.points[-1][1]:.3g} at step {c.points[-1][0]:g}" for c in shown]
    return responsive("Learning curves", numbers, 3.4, draw)


def validation_chart(curves: Sequence[Curve], title: str) -> str:
    """Return the score called `title` against step, one line per training that was validated."""
    shown = [curve for curve in curves if curve.points]
    if not shown:
        return ""

    def draw(axes: Axes) -> None:
        for curve in shown:
            steps, scores = zip(*curve.points, strict=True)
            axes.plot(
                steps,
                100 * np.asarray(scores),
                "o-",
                color=curve.color,
                linewidth=1.8,
                markersize=5,
            )
        axes.set_xlim(0, None)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"{title}, %")
        axes.grid(axis="y", color=GRID)

    numbers = [f"{c.name} {percent(c.points[-1][1])} % at step {c.points[-1][0]:g}" for c in shown]
    return responsive(f"{title} during training", numbers, 2.8, draw)


def precision_chart(rows: Sequence[Row], name: str) -> str:
    """Return the precision at IoU 0.5 against recall of one class, one line per row."""
    shown = [(row, row.precision_at_recall[name]) for row in rows if name in row.precision_at_recall]
    if not shown:
        return ""

    def draw(axes: Axes) -> None:
        for row, values in shown:
            recall = np.linspace(0, 100, len(values))
            axes.plot(recall, 100 * np.asarray(values), color=CSS[color_name(row)], linewidth=1.8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.set_xlabel("recall, %")
        axes.set_ylabel("precision, %")
        axes.grid(color=GRID)

    numbers = [f"{row.label} AP50 {percent(float(np.mean(values)))} %" for row, values in shown]
    return responsive(f"{name}: precision against recall at IoU 0.5", numbers, 2.6, draw)

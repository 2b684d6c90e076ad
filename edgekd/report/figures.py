"""Charts of the page as SVG markup: the stage line, IoU per class, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import svg
from edgekd.report.line import StageLine, Step
from edgekd.report.rows import Row
from edgekd.report.units import milliseconds, percent, points, scaled, size

# Stages and precisions that page.css gives a colour; all others share one.
_COLORED = ("teacher", "student", "distilled", "onnx", "fp32", "int8")


def color_of(row: Row) -> str:
    """Return the CSS class that carries a row's colour: its stage, or an engine's precision."""
    name = row.precision if row.stage == "engine" else row.stage
    return f"c-{name if name in _COLORED else 'other'}"


def details(row: Row) -> str:
    """Return all that was measured on a row, one fact a line, for hover text."""
    facts = [row.label + (f" ({row.id})" if row.id != row.label else "")]
    if row.miou is not None:
        facts.append(f"mIoU {percent(row.miou, 2)} %")
    if "boundary_iou" in row.metrics:
        facts.append(f"boundary IoU {percent(row.metrics['boundary_iou'], 2)} %")
    if row.latency and row.latency.p50 is not None:
        facts.append(f"engine p50 {milliseconds(row.latency.p50)} ms, p90 {milliseconds(row.latency.p90)} ms, "
                     f"p99 {milliseconds(row.latency.p99)} ms (n = {row.latency.n})")  # fmt: skip
    if row.wall and row.wall.p50 is not None:
        facts.append(f"wall p50 {milliseconds(row.wall.p50)} ms")
    if row.size_bytes is not None:
        facts.append(f"size {size(row.size_bytes)}")
    if row.params is not None:
        facts.append(f"{scaled(row.params).strip()} parameters")
    return "\n".join(facts)


# --- stage line -----------------------------------------------------------------------------------------------------


def stage_line_figure(stages: StageLine) -> str:
    """Return the stage line: one dot per stage at its mIoU, joined by its step; empty when fewer than two are measured."""
    if sum(step.delta is not None for step in stages.steps) < 1:
        return ""
    return svg.responsive("mIoU of every stage", lambda width: _draw_stage_line(stages, width))


def _draw_stage_line(stages: StageLine, width: int) -> tuple[float, str]:
    wide = width > 600
    pitch, top = (46, 14) if wide else (62, 22)
    left, right = (190, width - 330) if wide else (46, width - 46)
    shown = [100 * step.row.miou for step in stages.steps if step.row.miou is not None]
    scale = svg.Scale(*svg.span(shown, 0.08, least=1.0), left, right)
    bottom = top + pitch * len(stages.steps)
    y_of = {step.row.id: top + pitch * (i + 0.5) + (0 if wide else 10) for i, step in enumerate(stages.steps)}
    parts = [svg.x_axis(scale, top, bottom, "mIoU, %", 6 if wide else 4)]
    for step in stages.steps:
        parts.append(_labels(stages, step, y_of[step.row.id], width))
        if step.row.miou is not None:
            parts.append(_move(step, scale, y_of, is_value_shown=not wide))
    return bottom + 46, "".join(parts)


def _labels(stages: StageLine, step: Step, y: float, width: int) -> str:
    """Return the row's name and its step: beside the plot on a desktop, above the dot on a phone."""
    is_worst = step is stages.largest_loss
    css = "note worst" if is_worst else "note faint" if step.row.miou is None else "note"
    note = f"{points(step.delta)} {step.name}" if step.delta is not None else ""
    if step.row.miou is None:
        note = step.row.status
    if width > 600:
        parts = [svg.text(0, y + 4, step.row.label, "name")]
        if step.row.miou is not None:
            parts.append(svg.text(width - 262, y + 4, f"{percent(step.row.miou)} %", "value", "end"))
        parts.append(svg.text(width - 246, y + 4, note + ("  ▼ largest loss" if is_worst else ""), css))
    else:
        mark = "▼ " if is_worst else ""
        parts = [svg.text(0, y - 16, step.row.label, "name"), svg.text(width, y - 16, mark + note, css, "end")]
    return "".join(parts)


def _move(step: Step, scale: svg.Scale, y_of: dict[str, float], is_value_shown: bool) -> str:
    """Return the bar from the source's mIoU to the row's, and the row's dot."""
    x, y = scale(100 * (step.row.miou or 0.0)), y_of[step.row.id]
    is_loss = (step.delta or 0.0) < 0
    parts = []
    if step.source is not None and step.source.miou is not None:
        from_x = scale(100 * step.source.miou)
        parts.append(svg.line(from_x, y_of[step.source.id] + 8, from_x, y, "drop"))
        parts.append(svg.line(from_x, y, x, y, "move " + ("loss" if is_loss else "gain")))
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="dot {color_of(step.row)}"/>'
    parts.append(svg.mark(dot, details(step.row)))
    if is_value_shown:  # on the side that the bar leaves free
        at, anchor = (x - 12, "end") if is_loss else (x + 12, "start")
        parts.append(svg.text(at, y + 5, percent(step.row.miou), "value", anchor))
    return "".join(parts)


# --- classes --------------------------------------------------------------------------------------------------------


def class_figure(rows: Sequence[Row], classes: Sequence[str]) -> str:
    """Return per-class IoU bars, one group per class with one bar per row; empty when no row has per-class IoU."""
    shown = [row for row in rows if any(value is not None for value in row.iou_per_class.values())]
    if not shown or not classes:
        return ""
    return svg.responsive("IoU per class", lambda width: _draw_classes(shown, classes, width))


def _draw_classes(rows: list[Row], classes: Sequence[str], width: int) -> tuple[float, str]:
    wide = width > 600
    bar, gap = 12, 16 if wide else 32
    left = 170 if wide else 0
    pitch = bar * len(rows) + gap
    scale = svg.Scale(0, 100, left, width - 46)
    bottom = pitch * len(classes) + (0 if wide else 8)
    parts = [svg.x_axis(scale, 0, bottom, "IoU, %", 10 if wide else 5)]
    for i, name in enumerate(classes):
        top = i * pitch + (gap / 2 if wide else 26)
        short = name if len(name) <= 22 else name[:21] + "…"
        parts.append(svg.text(left - 10, top + bar * len(rows) / 2 + 4, short, "name", "end") if wide
                     else svg.text(0, top - 6, short, "name"))  # fmt: skip
        parts += [_bar(row, name, scale, top + bar * j, bar - 1.5) for j, row in enumerate(rows)]
    return bottom + 46, "".join(parts)


def _bar(row: Row, name: str, scale: svg.Scale, y: float, height: float) -> str:
    value = row.iou_per_class.get(name)
    if value is None:
        return svg.text(scale.start + 4, y + height, "absent", "tiny faint")
    length = max(1.0, scale(100 * value) - scale.start)
    body = f'<rect x="{scale.start:.1f}" y="{y:.1f}" width="{length:.1f}" height="{height:.1f}" rx="1.5" class="{color_of(row)}"/>'
    body += svg.text(scale.start + length + 5, y + height - 0.2, percent(value), "tiny")
    return svg.mark(body, f"{name}, {row.label}: IoU {percent(value, 2)} %")


# --- learning curves ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A learning curve: `points` are (step, loss)."""

    name: str
    css: str
    points: list[tuple[float, float]]


def curves_figure(curves: Sequence[Curve]) -> str:
    """Return loss against step, one line per training; empty when no curve has two points."""
    shown = [curve for curve in curves if len(curve.points) > 1]
    if not shown:
        return ""
    return svg.responsive("Learning curves", lambda width: _draw_curves(shown, width))


def _draw_curves(curves: list[Curve], width: int) -> tuple[float, str]:
    height = 320
    steps = [step for curve in curves for step, _ in curve.points]
    losses = [loss for curve in curves for _, loss in curve.points]
    is_log = min(losses) > 0 and max(losses) / min(losses) > 10
    low, high = (min(losses) / 1.1, max(losses) * 1.1) if is_log else (min(0.0, *losses), max(losses) * 1.05 or 1.0)
    x_scale = svg.Scale(min(0.0, *steps), max(steps) or 1.0, 46, width - 14)
    y_scale = svg.Scale(low, high, height - 50, 30, is_log)
    parts = [
        svg.x_axis(x_scale, 30, height - 50, "optimizer step", 8 if width > 600 else 4),
        svg.y_axis(y_scale, 46, width - 14, "task loss" + (", log scale" if is_log else ""), 5),
    ]
    for curve in curves:
        last = curve.points[-1]
        body = svg.polyline([(x_scale(step), y_scale(loss)) for step, loss in curve.points], f"curve {curve.css}")
        parts.append(svg.mark(body, f"{curve.name}: loss {last[1]:.3g} at step {last[0]:g}"))
    return height, "".join(parts)

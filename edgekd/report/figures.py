"""The charts of the page as SVG markup: the stage line, accuracy against latency, classes, learning curves."""

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
    left, right = (190, width - 330) if wide else (14, width - 14)
    shown = [100 * step.row.miou for step in stages.steps if step.row.miou is not None]
    scale = svg.Scale(*svg.span(shown, 0.08, least=1.0), left, right)
    bottom = top + pitch * len(stages.steps)
    y_of = {step.row.id: top + pitch * (i + 0.5) + (0 if wide else 10) for i, step in enumerate(stages.steps)}
    parts = [svg.x_axis(scale, top, bottom, "mIoU, %", 6 if wide else 4)]
    parts += [_step(stages, step, scale, y_of, width) for step in stages.steps]
    return bottom + 46, "".join(parts)


def _step(stages: StageLine, step: Step, scale: svg.Scale, y_of: dict[str, float], width: int) -> str:
    wide = width > 600
    y = y_of[step.row.id]
    parts = [svg.text(0, y + 4 if wide else y - 16, step.row.label, "name")]
    note, css = _step_note(stages, step)
    parts.append(
        svg.text(width - 318 if wide else width, y + 4 if wide else y - 16, note, css, "start" if wide else "end")
    )
    if step.row.miou is None:
        return "".join(parts)
    x = scale(100 * step.row.miou)
    if step.source is not None and step.source.miou is not None:
        from_x, from_y = scale(100 * step.source.miou), y_of[step.source.id]
        parts.append(svg.line(from_x, from_y + 8, from_x, y, "drop"))
        parts.append(svg.line(from_x, y, x, y, "move " + ("loss" if (step.delta or 0) < 0 else "gain")))
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="dot {color_of(step.row)}"/>'
    parts.append(svg.mark(dot, details(step.row)))
    value = percent(step.row.miou)
    if not wide:
        near_end = x > width - 60
        parts.append(svg.text(x + (-12 if near_end else 12), y + 5, value, "value", "end" if near_end else "start"))
    return "".join(parts)


def _step_note(stages: StageLine, step: Step) -> tuple[str, str]:
    if step.row.miou is None:
        return step.row.status, "note faint"
    if step.delta is None:
        return f"{percent(step.row.miou)} %", "note"
    note = f"{points(step.delta)}  {step.name}"
    if step is stages.largest_loss:
        return f"▼ {note}", "note worst"
    return note, "note"


# --- accuracy against latency ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: _Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def scatter_figure(rows: Sequence[Row]) -> str:
    """Return mIoU against engine p50; rows without latency are level lines; empty when no row has both numbers."""
    if not any(row.miou is not None and row.p50_ms for row in rows):
        return ""
    return svg.responsive("mIoU against engine latency", lambda width: _draw_scatter(rows, width))


def _draw_scatter(rows: Sequence[Row], width: int) -> tuple[float, str]:
    wide = width > 600
    height = 430 if wide else 380
    dots = [row for row in rows if row.miou is not None and row.p50_ms]
    levels = [row for row in rows if row.miou is not None and not row.p50_ms and row.stage != "engine"]
    times = [row.p50_ms for row in dots if row.p50_ms]
    is_log = max(times) / min(times) > 4
    low, high = (min(times) / 1.5, max(times) * 1.8) if is_log else (0.0, max(times) * 1.2)
    x_scale = svg.Scale(low, high, 46, width - 12, is_log)
    y_scale = svg.Scale(*svg.span([100 * (r.miou or 0) for r in (*dots, *levels)], 0.12, least=1.0), height - 50, 30)
    parts = [
        svg.x_axis(x_scale, 30, height - 50, "engine latency p50, ms per image" + (", log scale" if is_log else ""), 6),
        svg.y_axis(y_scale, 46, width - 12, "mIoU, %", 6),
    ]
    taken: list[_Box] = []
    for row in levels:
        y = y_scale(100 * (row.miou or 0))
        parts.append(svg.line(46, y, width - 12, y, f"level {color_of(row)}"))
        parts.append(_place_label(row.label, [(width - 16, y - 6, "end"), (width - 16, y + 15, "end")], taken, "faint"))
    at = {row.id: (x_scale(row.p50_ms or 1), y_scale(100 * (row.miou or 0))) for row in dots}
    taken += [_Box(x - 8, y - 8, x + 8, y + 8) for x, y in at.values()]
    for row in dots:
        reference = next((r for r in dots if r.place == row.place and r.precision == "fp32" and r is not row), None)
        if row.stage == "engine" and reference is not None:
            parts.append(svg.line(*at[reference.id], *at[row.id], "pair"))
    for row in dots:
        x, y = at[row.id]
        parts.append(svg.mark(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="dot {color_of(row)}"/>', details(row)))
        spots = [(x + 12, y + 4, "start"), (x - 12, y + 4, "end"), (x, y - 13, "middle"), (x, y + 22, "middle"),
                 (x, y - 29, "middle"), (x, y + 38, "middle")]  # fmt: skip
        inside = [s for s in spots if _label_box(row.label, *s).x0 > 46 and _label_box(row.label, *s).x1 < width - 4]
        parts.append(_place_label(row.label, inside or spots[:1], taken, "name"))
    return height, "".join(parts)


def _label_box(content: str, x: float, y: float, anchor: str) -> _Box:
    length = svg.CHAR_WIDTH * len(content)
    x0 = {"start": x, "middle": x - length / 2, "end": x - length}[anchor]
    return _Box(x0, y - 12, x0 + length, y + 4)


def _place_label(content: str, spots: list[tuple[float, float, str]], taken: list[_Box], css: str) -> str:
    """Return the label at the first spot that is free, else at the first; and note its box as taken."""
    free = (spot for spot in spots if not any(_label_box(content, *spot).overlaps(box) for box in taken))
    x, y, anchor = next(free, spots[0])
    taken.append(_label_box(content, x, y, anchor))
    return svg.text(x, y, content, css, anchor)


# --- classes --------------------------------------------------------------------------------------------------------


def class_figure(rows: Sequence[Row], classes: Sequence[str]) -> str:
    """Return per-class IoU bars, one group per class with one bar per row; empty when no row has per-class IoU."""
    shown = [row for row in rows if any(value is not None for value in row.iou_per_class.values())]
    if not shown or not classes:
        return ""
    return svg.responsive("IoU per class", lambda width: _draw_classes(shown, classes, width))


def _draw_classes(rows: list[Row], classes: Sequence[str], width: int) -> tuple[float, str]:
    wide = width > 600
    bar, gap = 9, 14 if wide else 30
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

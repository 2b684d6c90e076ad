"""Accuracy against latency as SVG: a dot per engine, a level line per network without latency, labels kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import svg
from edgekd.report.figures import color_of, details
from edgekd.report.rows import Row

_LEFT, _TOP, _BELOW, _RIGHT = 46, 30, 50, 12
# Level lines closer than this share one label.
_SAME_LEVEL_PX = 4
# A label farther above or below its dot is tied to it by a line.
_NEAR_PX = 26


@dataclass(frozen=True)
class _Box:
    """A place that is taken; `cost` is what covering it costs a label: much for text and dots, little for a line."""

    x0: float
    y0: float
    x1: float
    y1: float
    cost: float = 3.0

    def overlaps(self, other: _Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True)
class _Spot:
    """Where a label may go: its anchor point, and how it hangs on it."""

    x: float
    y: float
    anchor: str

    def box(self, content: str) -> _Box:
        length = svg.CHAR_WIDTH * 1.12 * len(content)  # labels are bold
        x0 = {"start": self.x, "middle": self.x - length / 2, "end": self.x - length}[self.anchor]
        return _Box(x0, self.y - 12, x0 + length, self.y + 4)


def scatter_figure(rows: Sequence[Row]) -> str:
    """Return mIoU against engine p50; rows without latency are level lines; empty when no row has both numbers."""
    if not any(row.miou is not None and row.p50_ms for row in rows):
        return ""
    return svg.responsive("mIoU against engine latency", lambda width: _draw(rows, width))


def _draw(rows: Sequence[Row], width: int) -> tuple[float, str]:
    height = 430 if width > 600 else 420
    dots = [row for row in rows if row.miou is not None and row.p50_ms]
    levels = [row for row in rows if row.miou is not None and not row.p50_ms and row.stage != "engine"]
    times = [row.p50_ms for row in dots if row.p50_ms]
    is_log = max(times) / min(times) > 4
    low, high = (min(times) / 1.5, max(times) * 1.8) if is_log else (0.0, max(times) * 1.2)
    x_scale = svg.Scale(low, high, _LEFT, width - _RIGHT, is_log)
    heights = [100 * (row.miou or 0) for row in (*dots, *levels)]
    y_scale = svg.Scale(*svg.span(heights, 0.12, least=1.0), height - _BELOW, _TOP)
    at = {row.id: (x_scale(row.p50_ms or 1.0), y_scale(100 * (row.miou or 0))) for row in dots}
    title = "engine latency p50, ms per image" + (", log scale" if is_log else "")
    taken = [_Box(x - 11, y - 11, x + 11, y + 11) for x, y in at.values()]
    lines, level_names = _levels(levels, y_scale, width, taken)
    parts = [
        svg.x_axis(x_scale, _TOP, height - _BELOW, title, 6),
        svg.y_axis(y_scale, _LEFT, width - _RIGHT, "mIoU, %", 6),
        lines,
        _pairs(dots, at, taken),
    ]
    parts += [_dot(row, *at[row.id], width, taken) for row in dots]
    parts += [_level_label(y, names, width, taken) for y, names in level_names]
    return height, "".join(parts)


def _levels(
    levels: Sequence[Row], y_scale: svg.Scale, width: int, taken: list[_Box]
) -> tuple[str, list[tuple[float, list[str]]]]:
    """Return the level lines, and for each its height and the rows it stands for."""
    parts, groups = [], list[tuple[float, list[str]]]()
    for row in levels:
        y = y_scale(100 * (row.miou or 0))
        group = next((names for at, names in groups if abs(at - y) < _SAME_LEVEL_PX), None)
        if group is not None:
            group.append(row.label)
            continue
        groups.append((y, [row.label]))
        parts.append(svg.line(_LEFT, y, width - _RIGHT, y, f"level {color_of(row)}"))
        taken.append(_Box(_LEFT, y - 1, width - _RIGHT, y + 1, cost=0.5))
    return "".join(parts), groups


def _level_label(y: float, names: Sequence[str], width: int, taken: list[_Box]) -> str:
    ends = ((width - 16, "end"), (_LEFT + 6, "start"), ((_LEFT + width) / 2, "middle"))
    spots = [_Spot(x, y + dy, anchor) for x, anchor in ends for dy in (-7, 17)]
    near_any_end = min(spots, key=lambda spot: _cost(spot, ", ".join(names), (spot.x, y), taken))
    return _label(", ".join(names), (near_any_end.x, y), [near_any_end], taken, "faint")


def _pairs(dots: Sequence[Row], at: dict[str, tuple[float, float]], taken: list[_Box]) -> str:
    """Return the lines from each engine to the fp32 engine of its target and board."""
    parts = []
    for row in dots:
        reference = next(
            (r for r in dots if r.stage == "engine" and r.place == row.place and r.precision == "fp32"), row
        )
        if row.stage != "engine" or reference is row:
            continue
        (x0, y0), (x1, y1) = at[reference.id], at[row.id]
        parts.append(svg.line(x0, y0, x1, y1, "pair"))
        for step in range(25):
            x, y = x0 + step / 24 * (x1 - x0), y0 + step / 24 * (y1 - y0)
            taken.append(_Box(x - 2, y - 2, x + 2, y + 2, cost=0.1))
    return "".join(parts)


def _dot(row: Row, x: float, y: float, width: int, taken: list[_Box]) -> str:
    body = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="dot {color_of(row)}"/>'
    spots = [
        _Spot(x + dx, y + dy, anchor)
        for dy in (-14, 24, -32, 42, -50, 60)
        for dx, anchor in ((0, "middle"), (-4, "start"), (4, "end"))
    ]
    spots = [_Spot(x + 13, y + 4, "start"), _Spot(x - 13, y + 4, "end"), *spots]
    inside = [spot for spot in spots if spot.box(row.label).x0 > _LEFT and spot.box(row.label).x1 < width]
    label = _label(row.label, (x, y), inside or spots, taken, "name")
    return label + svg.mark(body, details(row))


def _label(content: str, point: tuple[float, float], spots: Sequence[_Spot], taken: list[_Box], css: str) -> str:
    """Return the label at the spot that covers least and is nearest to its point; note its box as taken."""

    spot = min(spots, key=lambda spot: _cost(spot, content, point, taken))
    box = spot.box(content)
    taken.append(box)
    leader = ""
    if abs(spot.y - point[1]) > _NEAR_PX:  # too far to be read as this point's name
        leader = svg.line(*point, min(max(point[0], box.x0), box.x1), box.y1 if box.y1 < point[1] else box.y0, "leader")
    return leader + svg.text(spot.x, spot.y, content, css, spot.anchor)


def _cost(spot: _Spot, content: str, point: tuple[float, float], taken: Sequence[_Box]) -> float:
    covered = sum(box.cost for box in taken if spot.box(content).overlaps(box))
    return covered + math.hypot(spot.x - point[0], spot.y - point[1]) / 25

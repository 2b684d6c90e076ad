"""Inline SVG by hand: scales, ticks, text. Colours are CSS classes, so that a chart follows light and dark mode.

Why not a plotting library: the page must open from a mail attachment, without scripts, in light and dark, on paper
and on a phone. An embedded plotting script is about 5 MB, needs scripts, keeps one colour scheme and contains
external addresses; these charts are a few kB of markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

# Mean advance of a digit or lower-case letter in system-ui at 13 px; used only to keep labels apart.
CHAR_WIDTH = 6.9
WIDE, NARROW = 1000, 380


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end], linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        return self.start + self._fraction(value) * (self.end - self.start)

    def _fraction(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round values in [low, high]."""
        if self.is_log and self.high / self.low > 4:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            digits = (1, 2, 5) if len(decades) <= 4 else (1,)
            return [d * 10.0**e for e in decades for d in digits if self.low <= d * 10.0**e <= self.high]
        raw = (self.high - self.low) / max(1, count)
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def span(values: list[float], pad: float = 0.06, least: float = 0.0) -> tuple[float, float]:
    """Return (low, high) of values with `pad` of the range on both sides and a range of at least `least`."""
    low, high = min(values), max(values)
    missing = max(0.0, least - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = (high - low) * pad or abs(low) * pad or 1.0
    return low - margin, high + margin


def label(value: float) -> str:
    """Return a tick label without superfluous zeros."""
    return f"{value:.4g}"


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """Return a text element; `content` is escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def polyline(points: list[tuple[float, float]], css: str) -> str:
    """Return an open line through points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{css}"/>'


def mark(body: str, tip: str, css: str = "mark") -> str:
    """Return a group with hover and focus text; without scripts the browser shows the title."""
    return f'<g class="{css}" tabindex="0" role="img"><title>{escape(tip)}</title>{body}</g>'


def x_axis(scale: Scale, top: float, bottom: float, title: str, count: int) -> str:
    """Return vertical grid lines, tick labels below `bottom` and the axis title below them."""
    parts = []
    for tick in scale.ticks(count):
        parts.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        parts.append(text(scale(tick), bottom + 18, label(tick), "tick", "middle"))
    parts.append(text((scale.start + scale.end) / 2, bottom + 38, title, "axis", "middle"))
    return "".join(parts)


def y_axis(scale: Scale, left: float, right: float, title: str, count: int) -> str:
    """Return horizontal grid lines, tick labels left of `left` and the axis title above."""
    parts = []
    for tick in scale.ticks(count):
        parts.append(line(left, scale(tick), right, scale(tick), "grid"))
        parts.append(text(left - 8, scale(tick) + 4, label(tick), "tick", "end"))
    parts.append(text(2, scale.end - 12, title, "axis"))
    return "".join(parts)


def chart(width: float, height: float, name: str, body: str, css: str) -> str:
    """Return one svg element with an accessible name."""
    return f'<svg class="chart {css}" viewBox="0 0 {width:g} {height:g}" role="group" aria-label="{escape(name)}">{body}</svg>'


def responsive(name: str, draw: Callable[[int], tuple[float, str]]) -> str:
    """Return the chart drawn for a desktop and for a phone; style shows the one that fits.

    `draw(width)` returns the height it used and the markup.
    """
    parts = []
    for width, css in ((WIDE, "wide"), (NARROW, "narrow")):
        height, body = draw(width)
        parts.append(chart(width, height, name, body, css))
    return "".join(parts)

"""Latency distributions as SVG: one histogram per engine on one time axis, with its percentiles marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.report import svg
from edgekd.report.figures import color_of
from edgekd.report.rows import PERCENTILES, Latency, Row
from edgekd.report.units import milliseconds

_HISTOGRAM_HEIGHT = 44
# The axis ends where 99 % of every engine's runs and its p99 lie; slower runs are counted at its end, so that a few of
# them do not squeeze all others.
_SHOWN_SHARE = 0.99


@dataclass(frozen=True)
class Runs:
    """Raw runs of one row: `samples_ms` (N,) float64; `latency` is the row's own summary of them."""

    row: Row
    latency: Latency | None
    samples_ms: np.ndarray


def latency_figure(runs: Sequence[Runs], title: str) -> str:
    """Return the histograms, empty when there are no samples."""
    shown = [run for run in runs if run.samples_ms.size]
    if not shown:
        return ""
    return svg.responsive(title, lambda width: _draw(shown, title, width))


def suppressed(latency: Latency | None) -> list[str]:
    """Return the percentiles that the bench withheld because the number of runs cannot carry them."""
    if latency is None:
        return []
    return [name for name in PERCENTILES if getattr(latency, name) is None]


def _draw(runs: list[Runs], title: str, width: int) -> tuple[float, str]:
    wide = width > 600
    left, right = (190, width - 260) if wide else (4, width - 6)
    pitch = _HISTOGRAM_HEIGHT + (18 if wide else 52)
    low = min(float(run.samples_ms.min()) for run in runs)
    high = max(_shown_end(run) for run in runs)
    is_log = low > 0 and high / low > 8
    pad = max((high - low) * 0.04, high * 0.01)
    low, high = (low / 1.1, high * 1.1) if is_log else (max(0.0, low - pad), high + pad)
    scale = svg.Scale(low, high, left, right, is_log)
    bottom = pitch * len(runs) + 4
    parts = [svg.x_axis(scale, 0, bottom, f"{title}, ms" + (", log scale" if is_log else ""), 7 if wide else 4)]
    for i, run in enumerate(runs):
        base = pitch * (i + 1) - (2 if wide else 20)
        parts.append(_run(run, scale, base, width))
    return bottom + 46, "".join(parts)


def _shown_end(run: Runs) -> float:
    end = float(np.quantile(run.samples_ms, _SHOWN_SHARE, method="higher"))
    return max(end, run.latency.p99 or 0.0) if run.latency else end


def _run(run: Runs, scale: svg.Scale, base: float, width: int) -> str:
    wide = width > 600
    top = base - _HISTOGRAM_HEIGHT
    summary = _summary(run)
    body = f'<path d="{_outline(run.samples_ms, scale, base, 90 if wide else 60)}" class="hist {color_of(run.row)}"/>'
    parts = [svg.mark(body, f"{run.row.label}, {run.samples_ms.size} runs\n" + "\n".join(summary))]
    if wide:
        parts.append(svg.text(0, base - 18, run.row.label, "name"))
        parts.append(svg.text(0, base - 2, f"{run.samples_ms.size} runs", "tick"))
        parts += [svg.text(width - 246, base - 12 + 16 * i, fact, "note") for i, fact in enumerate(summary)]
    else:
        parts.append(svg.text(0, top - 8, f"{run.row.label}, {run.samples_ms.size} runs", "name"))
        parts.append(svg.text(0, base + 16, " · ".join(summary), "tick"))
    for name in PERCENTILES:
        value = getattr(run.latency, name) if run.latency else None
        if value is not None and scale.low <= value <= scale.high:
            parts.append(svg.line(scale(value), top - 3, scale(value), base, f"mark-{name}"))
    late = run.samples_ms[run.samples_ms > scale.high]
    if late.size:
        note = f"+{late.size} slower, to {milliseconds(float(late.max()))} ms"
        parts.append(svg.text(scale.end, top + 8, note, "tiny", "end"))
    return "".join(parts)


def _summary(run: Runs) -> list[str]:
    if run.latency is None:
        return ["percentiles not recorded"]
    facts = [f"{name} {milliseconds(getattr(run.latency, name))}" for name in PERCENTILES]
    return [f"{' · '.join(facts)} ms"]


def _outline(samples_ms: np.ndarray, scale: svg.Scale, base: float, bins: int) -> str:
    """Return the path of a histogram whose highest bin fills the row; runs beyond the axis are left out."""
    positions = np.linspace(0.0, 1.0, bins + 1)
    span = scale.high - scale.low
    edges = scale.low * (scale.high / scale.low) ** positions if scale.is_log else scale.low + span * positions
    counts, _ = np.histogram(samples_ms, edges)
    heights = counts / max(1, counts.max()) * _HISTOGRAM_HEIGHT
    pixels = scale.start + positions * (scale.end - scale.start)
    filled = np.flatnonzero(counts)
    if not filled.size:
        return f"M{scale.start:.1f} {base:.1f}"
    first, last = filled[0], filled[-1]
    path = [f"M{pixels[first]:.1f} {base:.1f}"]
    for i in range(first, last + 1):
        path.append(f"V{base - heights[i]:.1f}H{pixels[i + 1]:.1f}")
    return "".join(path) + f"V{base:.1f}Z"

"""The figures of a row that can be compared and limited: name, unit, direction, value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekd.comparison.model import Kind, Unit
from edgekd.comparison.runs import Series
from edgekd.core.task_metrics import TASKS
from edgekd.evaluate.definitions import DEFINITIONS, definitions
from edgekd.report.latency import Latency
from edgekd.report.model import Report, Row


@dataclass(frozen=True)
class Figure:
    """One figure.

    title: for a reader, without the unit.
    series, percentile: of a latency.
    """

    name: str
    title: str
    kind: Kind
    unit: Unit
    higher_is_better: bool = False
    series: Series = "engine"
    percentile: int = 50


MEASURED = (
    Figure("latency_p50_ms", "engine p50", "latency", "ms"),
    Figure("latency_p99_ms", "engine p99", "latency", "ms", percentile=99),
    Figure("wall_p50_ms", "wall p50", "latency", "ms", series="wall"),
    Figure("wall_p99_ms", "wall p99", "latency", "ms", series="wall", percentile=99),
    Figure("energy_net_mj", "net energy", "energy", "mJ"),
    Figure("energy_gross_mj", "gross energy", "energy", "mJ"),
    Figure("size_bytes", "size", "file", "bytes"),
    Figure("params", "parameters", "file", "count"),
    Figure("macs", "multiply-adds", "file", "count"),
)
_VALUES: dict[str, Callable[[Row], float | None]] = {
    "latency_p50_ms": lambda row: (row.latency_ms or Latency()).p50,
    "latency_p99_ms": lambda row: (row.latency_ms or Latency()).p99,
    "wall_p50_ms": lambda row: (row.wall_ms or Latency()).p50,
    "wall_p99_ms": lambda row: (row.wall_ms or Latency()).p99,
    "energy_net_mj": lambda row: row.energy.first.net_mj if row.energy else None,
    "energy_gross_mj": lambda row: row.energy.first.gross_mj if row.energy else None,
    "size_bytes": lambda row: row.size_bytes,
    "params": lambda row: row.params,
    "macs": lambda row: row.macs,
}
MEASURED_NAMES = tuple(_VALUES)


def figures_of(report: Report) -> dict[str, Figure]:
    """Return the figures of a report's rows by name: primary and secondary metric, other metrics, then the rest."""
    task, evaluate = TASKS[report.task], report.recipe.get("evaluate")
    most = evaluate.get("max_detections") if isinstance(evaluate, dict) else None
    known = definitions(most) if type(most) is int else DEFINITIONS
    names = {name for row in report.rows for name in row.metrics}
    ordered = [name for name in dict.fromkeys((task.metric, task.second, *known, *sorted(names))) if name in names]
    metrics = {name: _metric(name, *known.get(name, (name, "", True))) for name in ordered}
    return metrics | {figure.name: figure for figure in MEASURED}


def value_of(row: Row, figure: str) -> float | None:
    """Return a figure of a row in its unit; None where it was not measured."""
    value = _VALUES[figure](row) if figure in _VALUES else row.metrics.get(figure)
    try:
        return None if value is None else float(value)
    except OverflowError:  # a whole number that nobody measured
        return None


def _metric(name: str, title: str, text: str, higher_is_better: bool) -> Figure:
    return Figure(name, title, "score", "fraction", higher_is_better)

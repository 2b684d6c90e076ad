"""A comparison as text: table rows, lines about changes, and lines about figures that are not compared."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.comparison.model import ComparedRow, Comparison, Difference, Pair, Unit
from edgekd.core.task_metrics import TASKS
from edgekd.report.units import MISSING, milliseconds, percent, points, ratio, scaled, size

_ALWAYS = ("latency_p50_ms", "energy_net_mj")  # shown beside the metrics, also where nothing changed
_WHERE_CHANGED = ("size_bytes", "params", "macs")
_MOST_CHANGES = 12
UNITS: dict[Unit, str] = {
    "fraction": "%",
    "ms": "ms",
    "mJ": "mJ",
    "bytes": "",
    "count": "",
}  # a size has its unit in the value


@dataclass(frozen=True)
class TableRow:
    """One figure of one row, ready to print. `row` is set only in a row's first figure."""

    row: str
    figure: str
    old: str
    new: str
    change: str
    verdict: str


def headers(pair: Pair) -> TableRow:
    """Return the names of the columns."""
    return TableRow("row", "figure", pair.old, pair.new, "change [95 %]", "verdict")


def table_rows(comparison: Comparison, pair: Pair) -> list[TableRow]:
    """Return the main figures of each row: the task's two metrics, median latency, energy, and size and compute if changed."""
    task = TASKS[comparison.task]
    rows = []
    for row in pair.rows:
        shown = [one for one in row.figures if _is_shown(one, (task.metric, task.second))]
        rows += [_table_row(row, one, is_first=place == 0) for place, one in enumerate(shown)]
    return rows


def changed_lines(pair: Pair) -> list[str]:
    """Return a line for each change of recipe, versions and machine, and one with the number of omitted changes."""
    lines = [f"{one.kind} {one.key}: {one.old} -> {one.new}" for one in pair.changes]
    more = len(lines) - _MOST_CHANGES
    return [*lines[:_MOST_CHANGES], f"and {more} more changes, see --json"] if more > 0 else lines


def refused_lines(pair: Pair) -> list[str]:
    """Return a line for each reason why figures are not compared, and for rows in only one run."""
    lines = [f"{one.kind} of {_names(one.rows, pair)}: {one.reason}" for one in pair.refused]
    for letter, names in ((pair.old, pair.only_old), (pair.new, pair.only_new)):
        if names:
            lines.append(f"only in {letter}: {', '.join(names)}")
    return lines


def note_lines(comparison: Comparison, pair: Pair) -> list[str]:
    """Return the notes on the table's figures, each once with its number of figures."""
    task = TASKS[comparison.task]
    counted: dict[tuple[str, str], int] = {}
    for row in pair.rows:
        for one in row.figures:
            if one.note and one.verdict != "not comparable" and _is_shown(one, (task.metric, task.second)):
                counted[one.kind, one.note] = counted.get((one.kind, one.note), 0) + 1
    return [f"{kind} ({count} figures): {note}" for (kind, note), count in counted.items()]


def verdict_text(figure: Difference) -> str:
    """Return the verdict with its reservation, e.g. `worse, one seed`."""
    return ", ".join(part for part in (figure.verdict, figure.reservation) if part)


def value_text(value: float | None, unit: Unit) -> str:
    """Return a value in its unit of `UNITS`, without it."""
    if value is None:
        return MISSING
    if unit == "fraction":
        return percent(value)
    return {"ms": milliseconds, "mJ": milliseconds, "bytes": size}.get(unit, lambda v: scaled(v).strip())(value)


def change_text(figure: Difference) -> str:
    """Return the change with its interval, `+1.2 [−0.3, +2.7]` or `0.97× [0.95, 1.00]`; `–` where nothing is compared."""
    if figure.change is None:
        return MISSING
    is_fraction = figure.unit == "fraction"
    text = points(figure.change) if is_fraction else ratio(figure.change)
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return text
    ends = [points(end) if is_fraction else ratio(end).rstrip("×") for end in (figure.low, figure.high)]
    return f"{text} [{', '.join(ends)}]"


def _table_row(row: ComparedRow, figure: Difference, is_first: bool) -> TableRow:
    return TableRow(
        row=row.id if is_first else "",
        figure=f"{figure.title} {UNITS[figure.unit]}".strip(),
        old=value_text(figure.old, figure.unit),
        new=value_text(figure.new, figure.unit),
        change=change_text(figure),
        verdict=verdict_text(figure),
    )


def _is_shown(figure: Difference, metrics: tuple[str, str]) -> bool:
    if figure.figure in _WHERE_CHANGED:
        return figure.verdict != "same"
    return figure.figure in metrics or figure.figure in _ALWAYS


def _names(ids: list[str], pair: Pair) -> str:
    return "all rows" if len(ids) > 2 and len(ids) == len(pair.rows) else ", ".join(ids)

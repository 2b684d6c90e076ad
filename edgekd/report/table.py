"""The result table as text, for the command line and for the page's reader who wants to copy it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.core.task_metrics import TASKS
from edgekd.report.rows import Row, read_rows
from edgekd.report.units import MISSING, milliseconds, percent, scaled, size


@dataclass(frozen=True)
class TableRow:
    """One row of the result table; each field is ready to print, `–` where nothing was measured.

    score, second: the task's two first metrics, percent. p50_ms, wall_p50_ms: median engine and wall time of one image, milliseconds.
    note: of a row that was not measured status and reason; of one that was only timed, that it was not scored.
    """

    id: str
    precision: str
    score: str
    second: str
    p50_ms: str
    wall_p50_ms: str
    size: str
    params: str
    note: str


def headers(task: str) -> TableRow:
    """Return the names of the columns."""
    titles = (f"{TASKS[task].title} %", f"{TASKS[task].second_title} %")
    return TableRow("id", "precision", *titles, "p50 ms", "wall p50 ms", "size", "params", "note")


def table_rows(report: Mapping[str, Any]) -> list[TableRow]:
    """Return the table of a report, one entry per row in the report's order."""
    return [_table_row(row) for row in read_rows(report.get("rows") or [], report.get("task") or "semantic")]


def _table_row(row: Row) -> TableRow:
    note = row.reason if row.is_measured else ": ".join(part for part in (row.status, row.reason) if part)
    return TableRow(
        id=row.id,
        precision=row.precision or MISSING,
        score=percent(row.score),
        second=percent(row.second),
        p50_ms=milliseconds(row.p50_ms),
        wall_p50_ms=milliseconds(row.wall.p50 if row.wall else None),
        size=size(row.size_bytes),
        params=scaled(row.params).strip(),
        note=note,
    )

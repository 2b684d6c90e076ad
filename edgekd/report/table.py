"""The result table as text, for the command line and for the docs."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.core.task_metrics import TASKS
from edgekd.report.model import Report, Row
from edgekd.report.units import MISSING, milliseconds, percent, scaled, size


@dataclass(frozen=True)
class TableRow:
    """One row of the result table; each field is ready to print, `–` where nothing was measured.

    score, second: the primary and the secondary metric of the task, percent.
    same: pixels or detections of an engine that are those of its float ONNX graph, percent.
    p50_ms, wall_p50_ms: median engine and wall time of one image, milliseconds.
    note: status and reason of a row that is not measured; `not scored` for a row that was only timed.
    """

    id: str
    precision: str
    score: str
    second: str
    same: str
    p50_ms: str
    wall_p50_ms: str
    size: str
    params: str
    note: str


def headers(task: str) -> TableRow:
    """Return the names of the columns."""
    titles = (f"{TASKS[task].title} %", f"{TASKS[task].second_title} %")
    return TableRow("id", "precision", *titles, "as ONNX %", "p50 ms", "wall p50 ms", "size", "params", "note")


def table_rows(report: Report) -> list[TableRow]:
    """Return the table of a report, one entry per row in the report's order."""
    return [_table_row(row) for row in report.rows]


def notes(report: Report) -> list[str]:
    """Return the lines below the table: the ceiling of the score, and what looks wrong with the data."""
    row = next((row for row in report.rows if row.ceiling is not None), None)
    lines = []
    if row is not None:
        most = report.recipe.get("evaluate", {}).get("max_detections")
        lines.append(
            f"ceiling: {percent(row.ceiling)} % {row.score_title}, as perfect labels score with evaluate.max_detections {most}"
        )
    if found := report.findings:
        more = f" (and {len(found) - 1} more, see the report)" if len(found) > 1 else ""
        lines.append(f"data: {found[0].text}{more}")
    return lines


def _table_row(row: Row) -> TableRow:
    note = row.reason if row.is_measured else ": ".join(part for part in (row.status, row.reason) if part)
    return TableRow(
        id=row.id,
        precision=row.precision or MISSING,
        score=percent(row.score),
        second=percent(row.second),
        same=percent(row.same_share, 2),
        p50_ms=milliseconds(row.p50_ms),
        wall_p50_ms=milliseconds(row.wall_ms.p50 if row.wall_ms else None),
        size=size(row.size_bytes),
        params=scaled(row.params).strip(),
        note=note,
    )

"""The result table as text, for the command line and for the docs."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.core.task_metrics import TASKS
from edgekd.report.long_runs import energy_text
from edgekd.report.model import Report, Row
from edgekd.report.units import MISSING, milliseconds, percent, ratio, scaled, size


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
    """Return the lines below the table.

    The accuracy budget, energy and sustained latency, the ceiling of the score, findings in the data.
    """
    row = next((row for row in report.rows if row.ceiling is not None), None)
    lines = []
    if row is not None:
        most = report.recipe.get("evaluate", {}).get("max_detections")
        lines.append(
            f"ceiling: {percent(row.ceiling)} % {row.score_title}, as perfect labels score with evaluate.max_detections {most}"
        )
    lines += [f"{row.id}: {row.budget.text}" for row in report.rows if row.budget]
    if (qat := report.training.get("qat")) is not None and qat.budget:
        lines.append(f"budget: {qat.budget}: {'students trained further' if qat.steps else 'no further training'}")
    lines += [line for line in map(_long_run, report.rows) if line]
    if found := report.findings:
        more = f" (and {len(found) - 1} more, see the report)" if len(found) > 1 else ""
        lines.append(f"data: {found[0].text}{more}")
    return lines


def _long_run(row: Row) -> str:
    """Return energy per frame and sustained latency of a row on one line; "" where neither was asked for."""
    parts = []
    if row.energy is not None:
        reason = row.energy.first.reason
        parts.append(
            f"no energy per frame: {reason}" if reason else f"energy {energy_text(row)} mJ gross / net per frame"
        )
    if row.sustained is not None and (last_ms := row.sustained.last_p50_ms) is not None:
        to_burst = f", {ratio(last_ms / row.p50_ms)} of the p50" if row.p50_ms else ""
        throttled_s = row.sustained.throttled_after_s
        throttled = "" if throttled_s is None else f", throttled after {throttled_s:.0f} s"
        parts.append(f"sustained p50 {milliseconds(last_ms)} ms{to_burst}{throttled}")
    return f"{row.id}: {'; '.join(parts)}" if parts else ""


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

"""Notices of a report: missing parts, withheld percentiles, calibration of the quantized engines."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.board.timing import minimum_samples
from edgekd.report.charts import suppressed
from edgekd.report.model import Report, Row


def problems(report: Report) -> list[str]:
    """Return the reasons why the page is not complete, for the notice at its top."""
    lines = [f"The run ended early: {report.failure}"] if report.failure else []
    lines += [f"Gate failed: {gate.name}: {gate.text}" for gate in report.gates if not gate.passed]
    for status in ("failed", "not measured"):
        if labels := [row.label for row in report.rows if row.status == status]:
            lines.append(f"{status.capitalize()}: {', '.join(labels)}. The reasons are in the table.")
    lines += [
        f"{name}: the task loss was exactly 0 in {run.zero_loss_steps} of {run.steps} steps, which taught nothing."
        for name, run in report.training.items()
        if run.zero_loss_steps
    ]
    return lines + _uneven_means(report.rows)


def _uneven_means(rows: Sequence[Row]) -> list[str]:
    """Return a line for each class that only some rows' means include: it has no label, and only these rows predict it."""
    scored = [row for row in rows if row.is_measured and row.task == "semantic"]
    lines = []
    for name in dict.fromkeys(name for row in scored for name in row.per_class):
        seen = [row.label for row in scored if row.per_class.get(name) is not None]
        if seen and len(seen) < len(scored):
            lines.append(
                f"Means over different classes: no label is of class {name}, and {', '.join(seen)} took pixels for it, which "
                "counts as 0 % there and not in the other rows. Compare the classes."
            )
    return lines


def timing_notes(rows: Sequence[Row]) -> list[str]:
    """Return the withheld percentiles with their reason, then the warnings of the bench."""
    notes = []
    for row in rows:
        for what, latency in (("engine time", row.latency_ms), ("wall time", row.wall_ms)):
            for name in suppressed(latency):
                needed, has = minimum_samples(float(name[1:])), latency.n if latency else 0
                notes.append(f"{row.label}, {what}: {name} is withheld, it needs {needed} runs and has {has}")
    return notes + [f"{row.label}: {warning}" for row in rows for warning in row.warnings]


def calibration_text(report: Report) -> str:
    """Return the images of the int8 calibration in words; "" without one. Each quantized model can have another number."""
    found = [row.calibration for row in report.rows if row.calibration]
    found = found or ([report.calibration] if report.calibration else [])
    if not found:
        return ""
    counts = sorted({one.count for one in found})
    images = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"{images} images of the split “{found[0].split}”"

"""Compares runs row by row: differences with intervals, and the reasons why some figures are not compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.comparison.changes import changes
from edgekd.comparison.difference import Rows, difference, margin_of
from edgekd.comparison.figures import Figure, figures_of, value_of
from edgekd.comparison.model import SCHEMA, ComparedRow, ComparedRun, Comparison, Kind, Pair, Refusal
from edgekd.comparison.runs import Run
from edgekd.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compare(paths: Sequence[Path]) -> Comparison:
    """Return the comparison of runs with the first one.

    Args:
        paths: run folders or report.json files.

    Raises:
        UserError: fewer than two or too many runs, not a report, or runs of different tasks.
        ArtifactError: raw samples or image counts are damaged.
    """
    if not 2 <= len(paths) <= len(LETTERS):
        raise UserError(
            f"expected 2 to {len(LETTERS)} runs to compare, got {len(paths)}; give the folders of two runs or more"
        )
    runs = [Run(path) for path in paths]
    for run in runs[1:]:
        check_task(runs[0], run)
    described = [
        ComparedRun(
            letter=letter, path=str(run.path), title=run.report.title, recipe_sha256=run.report.recipe_sha256,
            created=run.report.created,
        )
        for letter, run in zip(LETTERS, runs, strict=False)
    ]  # fmt: skip
    pairs = [compare_two(runs[0], run, letter) for letter, run in zip(LETTERS[1:], runs[1:], strict=False)]
    return Comparison(schema=SCHEMA, task=runs[0].report.task, runs=described, pairs=pairs)


def check_task(old: Run, new: Run) -> None:
    """Raise UserError when two runs are of different tasks: nothing in them is comparable."""
    if old.report.task != new.report.task:
        raise UserError(
            f"{new.path} is a run of task {new.report.task!r}, {old.path} of {old.report.task!r}; compare runs of one task"
        )


def compare_two(old: Run, new: Run, letter: str = "B") -> Pair:
    """Return the comparison of a run with the baseline; errors as in `compare`."""
    margin = margin_of(old, new)
    both = [Rows(old, new, row, new.rows[row.id], margin) for row in old.rows.values() if row.id in new.rows]
    known = figures_of(old.report) | figures_of(new.report)
    if not both:
        raise UserError(f"{old.path} and {new.path} have no row of the same id; compare runs of the same engines")
    compared = [
        ComparedRow(
            id=rows.new.id,
            label=rows.new.label,
            weights=rows.weights,
            figures=[difference(figure, rows) for figure in known.values() if _is_known(figure, rows)],
        )
        for rows in both
    ]
    return Pair(
        old="A",
        new=letter,
        changes=changes(old, new),
        refused=_refusals(compared),
        rows=compared,
        only_old=[name for name in old.rows if name not in new.rows],
        only_new=[name for name in new.rows if name not in old.rows],
    )


def _refusals(rows: Sequence[ComparedRow]) -> list[Refusal]:
    """Return the reasons why figures are not compared, each once with its rows."""
    found: dict[tuple[Kind, str], dict[str, None]] = {}
    for row in rows:
        for one in row.figures:
            if one.verdict == "not comparable":
                found.setdefault((one.kind, one.note), {})[row.id] = None
    return [Refusal(kind=kind, rows=list(ids), reason=reason) for (kind, reason), ids in found.items()]


def _is_known(figure: Figure, rows: Rows) -> bool:
    return any(value_of(row, figure.name) is not None for row in (rows.old, rows.new))

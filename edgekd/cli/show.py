"""What several commands print: the result table and what a stage did."""

from __future__ import annotations

import json
import sys
from dataclasses import astuple
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(value: Any) -> None:
    """Print a value for a machine."""
    print(json.dumps(value, indent=1, allow_nan=False, default=str))


def print_results(report: dict[str, Any]) -> None:
    """Print the result table of a report on stdout."""
    from edgekd.report.table import HEADERS, table_rows

    table = Table(box=None, pad_edge=False)
    for title in astuple(HEADERS):
        table.add_column(title, justify="left" if title in ("id", "precision", "note") else "right")
    for row in table_rows(report):
        table.add_row(*astuple(row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def stage_line(stage_run: Any) -> None:
    """Print on stderr what happened to a stage."""
    state = "skipped, already done" if stage_run.skipped else f"done in {stage_run.seconds:.1f} s"
    print(f"{stage_run.stage.name}: {state}", file=sys.stderr)


def study_run_line(run: Any, state: str, ended: int, total: int) -> None:
    """Print on stderr how a run of a study ended, and how many are left."""
    from edgekd.study.run import why_failed

    said = {"done": "done", "elsewhere": "worked on by another process"}.get(state) or f"failed: {why_failed(run)}"
    print(f"{run.arm} seed {run.seed}: {said} ({ended} of {total} runs)", file=sys.stderr)


def print_study(study: dict[str, Any]) -> None:
    """Print the table of a study on stdout."""
    from edgekd.study.table import HEADERS, rows

    table = Table(box=None, pad_edge=False)
    for title in HEADERS:
        table.add_column(title, justify="left" if title in (HEADERS[0], HEADERS[-1]) else "right")
    for row in rows(study):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 170).print(table)

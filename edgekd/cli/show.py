"""Output that several commands share: the result table, and lines about stages."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from edgekd.report.model import Report
    from edgekd.study.model import Study


def command(name: str, *words: str, set_: Iterable[str] = (), boards: Iterable[str] = ()) -> str:
    """Return an `edgekd` command to copy, with the overrides and boards of the one that was called."""
    given = [("--set", override) for override in set_] + [("--board", board) for board in boards]
    return shlex.join(["edgekd", name, *words, *(word for pair in given for word in pair)])


def visible(text: str) -> str:
    """Return a text of a file for a terminal: control characters become U+FFFD."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def print_json(value: Any) -> None:
    """Print a value for a machine."""
    print(json.dumps(value, indent=1, allow_nan=False, default=str))


def print_results(report: Report) -> None:
    """Print the result table of a report on stdout."""
    from edgekd.report.table import headers, notes, table_rows

    print_table(astuple(headers(report.task)), map(astuple, table_rows(report)), left=("id", "precision", "note"))
    for line in notes(report):
        print(line)


def print_stages(report: Report) -> None:
    """Print the time by stage, load time and memory of a report's engines on stdout."""
    from edgekd.report.stage_table import headers, stage_rows

    print("\ntime by stage: medians in ms")
    print_table(astuple(headers(report.task)), map(astuple, stage_rows(report)), left=("id",))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str], width: int = 140) -> None:
    """Print a table on stdout; columns not in `left` are aligned right.

    Args:
        titles: titles of the columns.
        rows: texts.
        left: titles of the columns that are aligned left.
        width: characters of a line where stdout is no terminal.
    """
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(escape(title), justify="left" if title in left else "right")
    for row in rows:
        table.add_row(*(escape(visible(text)) for text in row))
    Console(width=None if sys.stdout.isatty() else width).print(table)


def print_plan(plan: Any) -> None:
    """Print what a distillation compares (`edgekd.distill.plan.DistillPlan`) on stdout."""
    print(f"one training crop of {plan.crop[0]}x{plan.crop[1]} pixels (height x width), {plan.classes} classes")
    for side, maps in (("teacher", plan.teacher), ("student", plan.student)):
        print(f"\n{side:<12} {'stride':>6} {'channels':>9}  height x width")
        for one in maps:
            print(f"  {one.name:<10} {one.stride:>6g} {one.channels:>9}  {one.size[0]}x{one.size[1]}")
    for method in plan.methods:
        print(f"\n{method.name}: weight {method.weight:g}, warm-up {method.warmup:.0%} of the steps, {method.schedule}")
        if method.options:
            print("  " + ", ".join(f"{name} {value}" for name, value in method.options.items()))
        for term in method.terms:
            print(
                f"  {method.name}.{term.name}: {_maps(term.teacher)} of the teacher, {_maps(term.student)} of the student"
            )
        for adapter in method.adapters:
            print(f"  adapter {adapter.name} {list(adapter.shape)}: {adapter.params} parameters")
    adapters = sum(adapter.params for method in plan.methods for adapter in method.adapters)
    print(f"\nadapters: {adapters} parameters that train with the student and are not exported")
    if plan.answers_bytes is not None:
        print(f"teacher_cache: the outputs for all views need {plan.answers_bytes / 2**30:.2f} GiB")


def _maps(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def stage_line(stage_run: Any) -> None:
    """Print a stage's outcome on stderr."""
    state = "skipped, already done" if stage_run.skipped else f"done in {stage_run.seconds:.1f} s"
    print(f"{stage_run.stage.name}: {state}", file=sys.stderr)


@contextmanager
def failures() -> Iterator[list[Any]]:
    """Collect stages that fail without ending the run (`pipeline.StageFailure`), and exit with their code at the end.

    Raises:
        typer.Exit: 1 when a stage failed, 70 when one failed by an error that edgekd did not expect.
    """
    failed: list[Any] = []
    try:
        yield failed
    finally:  # also when another stage ends the run
        for one in (one for one in failed if not one.cause):
            print(f"edgekd: {one.name} failed: {' '.join(one.reason.split())}", file=sys.stderr)
    if failed:
        raise typer.Exit(70 if any(one.is_bug for one in failed) else 1)


def study_run_line(run: Any, result: Any, ended: int, total: int) -> None:
    """Print on stderr how a run of a study ended, and how many are left."""
    from edgekd.study.results import NoResult

    said = "done"
    if isinstance(result, NoResult):
        said = f"failed: {result.reason}" if result.status == "failed" else result.reason
    else:
        lost = [f"{name}: {one.reason}" for name, one in result.items() if isinstance(one, NoResult)]
        said = f"done without {'; '.join(lost)}" if lost else said
    print(f"{run.arm} seed {run.seed}: {said} ({ended} of {total} runs)", file=sys.stderr)


def print_study(study: Study) -> None:
    """Print the table of a study on stdout."""
    from edgekd.core.task_metrics import TASKS
    from edgekd.study import quantized_table
    from edgekd.study.table import headers, rows

    titles = headers(study)
    print_table(titles, rows(study), left=(titles[0], titles[-1]), width=170)
    if study.is_quantized:
        metric = TASKS[study.task].metric
        print(f"\n{quantized_table.title(study, metric)}")
        columns = quantized_table.headers(study)
        print_table(columns, quantized_table.rows(study, metric), left=columns[:1], width=170)

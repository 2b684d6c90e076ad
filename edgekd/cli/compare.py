"""`edgekd compare`: differences between runs with intervals; imports no framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.comparison.model import Comparison


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Output folders of `edgekd run`, or of `edgekd study`; the first is the baseline."),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write an HTML page.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare finished runs row by row with the first one, or studies arm by arm.

    Each difference has a 95 % interval where the runs stored its data: scores by a bootstrap over the images, latency by the
    rounds of the bench, arms of studies by their common seeds. Scores are compared only on the same images and classes, latency
    only on the same machine.
    """
    from edgekd.cli import show
    from edgekd.comparison.compare import compare as compare_runs
    from edgekd.study.compared import is_study

    if is_study(runs[0]) and not (runs[0] / "report.json").is_file():
        _studies(runs, out, json)
        return
    comparison = compare_runs(runs)
    if json:
        show.print_json(comparison.to_dict())
    else:
        _show(comparison)
    if out is not None:
        from edgekd.comparison.page import write_page

        write_page(comparison, out)
        if not json:
            print(f"\npage: {out}")


def _studies(folders: list[Path], out: Path | None, json: bool) -> None:
    from edgekd.cli import show
    from edgekd.errors import UserError
    from edgekd.study.compared import HEADERS, compare_studies, lines, table_rows

    if out is not None:
        raise UserError("--out: a comparison of studies has no page; use --json, or leave --out out")
    comparison = compare_studies(folders)
    if json:
        show.print_json(comparison.to_dict())
        return
    for one in comparison.studies:
        print(show.visible(f"{one.letter}: {one.path}  ({one.recipe_name})"))
    for pair in comparison.pairs:
        print(f"\n{pair.new} against {pair.old}")
        for line in lines(pair):
            print(show.visible(f"  {line}"))
        if pair.arms:
            show.print_table(HEADERS, table_rows(pair), left=("arm", "metric", "verdict"))


def _show(comparison: Comparison) -> None:
    from dataclasses import astuple

    from edgekd.cli import show
    from edgekd.comparison import table

    for run in comparison.runs:
        print(show.visible(f"{run.letter}: {run.path}" + (f"  ({run.title})" if run.title else "")))
    for pair in comparison.pairs:
        print(f"\n{pair.new} against {pair.old}")
        for title, lines in (
            ("changed", table.changed_lines(pair) or ["nothing in recipe, versions and machine"]),
            ("not compared", table.refused_lines(pair)),
        ):
            for line in lines:
                print(show.visible(f"  {title}: {line}"))
        show.print_table(
            astuple(table.headers(pair)), map(astuple, table.table_rows(comparison, pair)), left=("row", "figure", "verdict")
        )  # fmt: skip
        for line in table.note_lines(comparison, pair):
            print(show.visible(f"  {line}"))

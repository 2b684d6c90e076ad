"""`edgekd data check`: validates every file of a recipe's data set and draws a contact sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.run import JsonOption, RecipeArg, SetOption

SHOWN = 100  # most errors that are printed

app = typer.Typer(help="Check a data set.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand."""


@app.command()
def check(
    recipe: RecipeArg,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    sheet: Annotated[Path, typer.Option(help="Folder for the contact sheets; default the current one.")] = Path("."),
    json: JsonOption = False,
) -> None:
    """Read every image and label. Lists errors and warnings, counts classes, draws contact sheets."""
    from edgekd.cli import show
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.data.check import check_data
    from edgekd.data.contact_sheet import write_contact_sheets
    from edgekd.data.split_findings import indivisible_size
    from edgekd.data.splits import shared_splits

    with shared_splits():
        loaded = load_recipe(recipe, set_)
        checked = check_data(loaded)
        checked = replace(checked, findings=(*checked.findings, *indivisible_size(loaded.data)))
        good = [report.split for report in checked.reports if report.num_images and not report.num_bad]
        sheets, problem = write_contact_sheets({split: checked.datasets[split] for split in good}, sheet)
    if json:
        show.print_json({**checked.to_dict(), "contact_sheets": sheets})
    else:
        for report in checked.reports:
            print(report.text(SHOWN))
        for finding in checked.findings:
            print(f"{'error' if finding.is_error else 'warning'}: {finding.text}")
        for path in sheets:
            print(f"contact sheet: {path}")
    checked.require_no_error()
    if problem:
        raise problem
    if not json:
        print(f"next: {show.command('run', recipe, set_=set_)}")

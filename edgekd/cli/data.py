"""`edgekd data check`: validates every file of a recipe's data set and draws a contact sheet."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.run import JsonOption, RecipeArg, SetOption
from edgekd.errors import one_line

SHOWN = 100  # errors of annotations; more are rarely read

app = typer.Typer(help="Look at and validate a data set.", no_args_is_help=True)


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
    """Read every image and mask of both splits; list what is wrong, count the classes, draw a contact sheet."""
    from edgekd.cli import show
    from edgekd.core.progress import progress_bar
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.core.workspace import disk_errors
    from edgekd.data.check import check_dataset, unreadable
    from edgekd.data.contact_sheet import write_contact_sheet
    from edgekd.data.splits import check_splits, open_split, shared_images
    from edgekd.errors import DataError

    loaded = load_recipe(recipe, set_)
    data = loaded.data
    reports, sheets, opened, findings = [], [], {}, []
    for split in (data.train, data.val):
        try:
            dataset = opened[split] = open_split(loaded, split)
        except DataError as exc:
            reports.append(unreadable(split, exc.lines or (one_line(exc, None),)))
            continue
        with progress_bar(f"reading split {split}") as progress:
            reports.append(check_dataset(dataset, split, progress))
        if not reports[-1].errors:
            sheets.append(sheet / f"contact_sheet_{split.replace('/', '_')}.png")
            with disk_errors(sheet):
                write_contact_sheet(dataset, sheets[-1])
    if len(opened) == len({data.train, data.val}):
        try:
            train, val = opened[data.train], opened[data.val]
            findings = check_splits(loaded, train, val, shared_images(train, val))
        except DataError as exc:
            reports[-1] = replace(reports[-1], errors=(*reports[-1].errors, str(exc)))
    if json:
        result = {"splits": [asdict(report) for report in reports], "findings": findings, "contact_sheets": sheets}
        show.print_json(result)
    else:
        for report in reports:
            print(report.text(SHOWN))
        for finding in findings:
            print(f"warning: {finding}")
        for path in sheets:
            print(f"contact sheet: {path}")
    errors = [line for report in reports for line in report.errors]
    if errors:
        raise DataError(f"{len(errors)} errors, first: {errors[0]}" if len(errors) > 1 else errors[0])
    if not json:
        print(f"next: {show.command('run', recipe, set_=set_)}")

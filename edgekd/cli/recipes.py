"""`edgekd recipes`: list, show and copy the recipes that come with edgekd."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, show and copy the shipped recipes.", no_args_is_help=True)


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the shipped recipes with the first line of their comment."""
    from edgekd.cli.show import print_json
    from edgekd.core.recipe_loading import shipped_recipes

    found = {
        name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in shipped_recipes().items()
    }
    if json:
        print_json(found)
        return
    for name, title in found.items():
        print(f"{name:40} {title}")
    print("next: edgekd recipes copy NAME")


@app.command()
def show(name: str) -> None:
    """Print a recipe."""
    from edgekd.core.recipe_file import read_text
    from edgekd.core.recipe_loading import find_recipe

    print(read_text(find_recipe(name)), end="")


@app.command()
def copy(
    name: str,
    to: Annotated[Path, typer.Argument(help="File or folder to write; default the current folder.")] = Path("."),
) -> None:
    """Copy a recipe to edit; an existing file is never overwritten."""
    from edgekd.core.recipe_loading import find_recipe
    from edgekd.core.workspace import disk_errors
    from edgekd.errors import UserError

    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UserError(f"{target} exists; give another file name, or remove it")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder; make it first")
    with disk_errors(target.parent):
        target.write_bytes(source.read_bytes())
    print(target)
    print(f"next: edgekd data check {target}; then edgekd run {target}")

"""`edgekd recipes`: list, show and copy the recipes that come with edgekd."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NameArg = Annotated[str, typer.Argument(help="A shipped recipe, or a file.")]
app = typer.Typer(help="List, show and copy the shipped recipes.", no_args_is_help=True)


_TASKS = {"semantic": "semantic segmentation", "detection": "detection", "instance": "instance segmentation"}
_STUDIES = "studies, for edgekd study"


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the shipped recipes by task, with networks, methods, and what each needs."""
    from shutil import get_terminal_size
    from textwrap import fill

    from edgekd.cli.show import print_json
    from edgekd.core.recipe_loading import shipped_recipes

    found = {name: _facts(name, path) for name, path in shipped_recipes().items()}
    if json:
        print_json(found)
        return
    width = min(get_terminal_size((120, 24)).columns, 120)
    for group in (*_TASKS.values(), _STUDIES):
        print(f"{group}:")
        for name, facts in found.items():
            if facts["group"] == group:
                print(f"  {name}")
                for text in (f"{facts['title']} {facts['networks']}", f"needs {facts['needs']}"):
                    print(fill(text, width, initial_indent="      ", subsequent_indent="      "))
    print("next: edgekd recipes copy NAME")


def _facts(name: str, path: Path) -> dict[str, str]:
    """Return title, needs, networks and group of a recipe: the first two are its first comment lines."""
    from edgekd.core.recipe_file import read_text
    from edgekd.core.recipe_loading import load_recipe

    title, needs, *_ = read_text(path).splitlines()
    recipe = load_recipe(str(path))
    teacher, student = recipe.teacher, recipe.student
    networks = f"{teacher.family} {teacher.variant} teaches {student.family} {student.variant}"
    methods = ", ".join(recipe.distill.methods or ())
    return {
        "group": _STUDIES if name.startswith("study/") else _TASKS[recipe.task],
        "task": recipe.task,
        "title": title.lstrip("# "),
        "networks": f"{networks} by {methods}" if methods and not name.startswith("study/") else networks,
        "needs": needs.partition("needs:")[2].strip(),
    }


@app.command()
def show(name: NameArg) -> None:
    """Print a recipe."""
    from edgekd.core.recipe_file import read_text
    from edgekd.core.recipe_loading import find_recipe

    print(read_text(find_recipe(name)), end="")


@app.command()
def copy(
    name: NameArg,
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

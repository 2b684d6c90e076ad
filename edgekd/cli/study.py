"""`edgekd study`: does distillation pay? Arms and seeds at equal budget, with the interval of the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.run import JsonOption, RecipeArg, SetOption


def study(
    recipe: RecipeArg,
    out: Annotated[Path | None, typer.Option(help="Output folder; default runs/<recipe name>-study.")] = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time; they share the CPU's cores, or take turns of GPUs.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Compare distillation methods with the plain student, seed by seed. Run it again to resume."""
    from edgekd import api
    from edgekd.cli import show

    folder = out or Path("runs") / f"{Path(recipe).stem}-study"
    result = api.run_study(recipe, folder, set_, jobs=jobs, on_stage=show.stage_line, on_run=show.study_run_line)
    if json:
        show.print_json(result)
        return
    show.print_study(result)
    print(f"\npicture: {folder / 'study.png'}\ntable:   {folder / 'study.md'}")
    missing = sum(run["status"] != "measured" for arm in result["arms"] for run in arm["runs"])
    if missing:
        print(f"next:    edgekd study {recipe} --out {folder}   ({missing} runs have no result yet)")
    else:
        print(f"next:    edgekd run {recipe}")

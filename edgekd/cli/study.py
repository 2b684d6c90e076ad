"""`edgekd study`: compares distillation methods at equal budget over seeds, with the interval of the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.run import JsonOption, RecipeArg, SetOption
from edgekd.errors import GateError


def study(
    recipe: RecipeArg,
    out: Annotated[Path | None, typer.Option(help="Output folder; default runs/<recipe name>-study.")] = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    launcher: Annotated[
        str | None, typer.Option(help="Where the runs are done: local, slurm, ray. Default study.launcher.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default study.options.jobs.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Build engines again that failed in an earlier study in this folder.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare distillation methods, or int8 engines after PTQ and QAT, over several seeds. A second run resumes."""
    from edgekd import api
    from edgekd.cli import show
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.study.results import read_study

    given = {"study.launcher": launcher, "study.options.jobs": jobs}
    set_ = [*set_, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    loaded = load_recipe(recipe, set_)
    folder = out or Path("runs") / f"{loaded.name}-study"
    result = api.run_study(loaded, folder, on_stage=show.stage_line, on_run=show.study_run_line, retry=retry)
    content = read_study(folder)
    states = [run.status for arm in content.arms for run in arm.runs]
    what = "scores" if content.is_quantized else "runs"
    if json:
        show.print_json(result)
    else:
        show.print_study(content)
        print(f"\npicture: {folder / 'study.png'}\ntable:   {folder / 'study.md'}")
        flags = ("--retry",) if content.is_quantized and "failed" in states else ()
        again = show.command("study", recipe, "--out", str(folder), *flags, set_=set_)
        missing = sum(state != "measured" for state in states)
        if missing:
            print(f"next:    {again}   ({missing} of {len(states)} {what} are missing)")
        else:
            print(f"next:    {show.command('run', recipe, set_=set_)}")
    if "failed" in states:
        raise GateError(f"{states.count('failed')} of {len(states)} {what} failed; {folder / 'study.json'} says why")

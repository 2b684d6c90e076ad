"""`edgekd run`: a recipe's whole pipeline, or as far as `--until`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArg = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe (edgekd recipes list).")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Output folder; default runs/<recipe name>.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a recipe value. @FILE: a YAML file of changes."),
]
BoardOption = Annotated[
    list[str],
    typer.Option("--board", metavar="NAME", help="Board for all engines of the recipe; repeat it for several boards."),
]
LoggerOption = Annotated[
    list[str],
    typer.Option(
        "--logger",
        metavar="NAME",
        help="Send losses and scores to csv, tensorboard, mlflow or wandb; repeat it for several (trainer.loggers).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(
    recipe: RecipeArg,
    out: OutOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    board: BoardOption = [],  # noqa: B006
    logger: LoggerOption = [],  # noqa: B006
    until: Annotated[str | None, typer.Option(help="Stop after this stage or group, e.g. distilled.")] = None,
    json: JsonOption = False,
) -> None:
    """Run a recipe: train, distil, export, quantize, compile, measure, report. A second run resumes."""
    from edgekd import api, pipeline
    from edgekd.cli import show
    from edgekd.core.recipe_loading import find_recipe, load_recipe
    from edgekd.executors.boards import connected

    set_ = with_loggers(set_, logger)
    loaded = load_recipe(recipe, set_, board)
    folder = out or pipeline.default_out(loaded)
    with connected(find_recipe(recipe).parent), show.failures() as failed:
        result = api.run(loaded, folder, until=until, on_stage=show.stage_line, on_failure=failed.append)
        if json:
            show.print_json(result)
            return
        _show(recipe, folder, set_, board)


def with_loggers(overrides: list[str], loggers: list[str]) -> list[str]:
    """Return overrides with the loggers of `--logger`."""
    return [*overrides, f"trainer.loggers=[{', '.join(loggers)}]"] if loggers else overrides


def _show(recipe: str, folder: Path, set_: list[str], boards: list[str]) -> None:
    from edgekd.cli import show
    from edgekd.report.stored import read_report

    report = read_report(folder)
    show.print_results(report)
    page = folder / "report.html"
    print(f"\nreport: {page if page.exists() else folder / 'report.json'}")
    measured = [row.id for row in report.rows if row.stage == "engine" and row.is_measured]
    if measured:
        print(f"next:   {show.command('predict', str(folder / 'engine' / measured[-1]))} IMAGE...")
    else:
        print(f"next:   {show.command('run', recipe, '--out', str(folder), set_=set_, boards=boards)}")

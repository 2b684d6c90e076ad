"""`edgekd tune`: finds settings that make a run's engines faster without changing their results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.tuning.result import Tuning


def tune(
    run: Annotated[Path, typer.Argument(help="Output folder of `edgekd run`.")],
    engine: Annotated[list[str], typer.Option("--engine", help="Id of an engine to tune; default all.")] = [],  # noqa: B006
    rounds: Annotated[int, typer.Option(help="Bursts of each engine in each measurement, at least 6.")] = 12,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find faster settings for a run's engines: threads, hints, layouts, graphs. Writes them to RUN/tune.yaml.

    Engines take turns in short bursts. A setting is chosen if the 95 % interval of its wall-time ratio shows that it is faster.
    A setting that changes the results is refused.
    """
    from edgekd.cli import show
    from edgekd.core.progress import progress_bar
    from edgekd.tuning.work import tune as tune_run

    with progress_bar("tuning, %", redraws_itself=False) as progress:
        tuning = tune_run(run, engine, rounds, lambda _, share: progress(int(100 * share), 100))
    if json:
        show.print_json(tuning.to_dict())
    else:
        _show(tuning, run)


def _show(tuning: Tuning, run: Path) -> None:
    from edgekd.cli import show
    from edgekd.core.recipe_loading import shipped_recipes
    from edgekd.tuning.result import HEADERS, rows
    from edgekd.tuning.work import FRAGMENT

    for one in tuning.engines:
        print(f"\n{one.id}")
        show.print_table(HEADERS, rows(one), left=("choice", "verdict"))
    for name, reason in tuning.left_out.items():
        print(f"\n{name}: not tuned: {reason}")
    overrides = tuning.overrides()
    if not overrides:
        print("\nno choice is faster: keep the settings")
        return
    recipe = tuning.recipe_name if tuning.recipe_name in shipped_recipes() else "RECIPE"
    print(f"\nwinners: {run / FRAGMENT}, or " + " ".join(f"--set {one!r}" for one in overrides))
    print(
        f"next:    {show.command('run', recipe, '--out', str(run), set_=['@' + str(run / FRAGMENT)])}  (and the run's own --set)"
    )

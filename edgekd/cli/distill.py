"""`edgekd distill`: trains the distilled student; with `--plan` it only prints the maps and terms."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgekd.cli.run import JsonOption, LoggerOption, OutOption, RecipeArg, SetOption, with_loggers

PlanOption = Annotated[
    bool, typer.Option("--plan", help="Show feature maps, terms, adapters and weights; train nothing.")
]


def distill(
    recipe: RecipeArg,
    out: OutOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    logger: LoggerOption = [],  # noqa: B006
    plan: PlanOption = False,
    json: JsonOption = False,
) -> None:
    """Distil the student from the teacher. Runs earlier stages that are not done."""
    from edgekd.cli import show, stages

    set_ = with_loggers(set_, logger)
    if not plan:
        stages.run_until(stages.Called(recipe, out, set_, json), "distilled", "export")
        return
    from edgekd.core.plugins import packages_of
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.pipeline.checks import check_options

    loaded = load_recipe(recipe, set_)
    check_options(loaded)
    with packages_of("distill --plan"):
        from edgekd.distill.plan import plan as plan_of

        made = plan_of(loaded)
    if json:
        show.print_json(asdict(made))
    else:
        show.print_plan(made)

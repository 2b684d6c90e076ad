"""`edgekd check`: problems of a model on a target, before it is trained or built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli.run import JsonOption, SetOption

if TYPE_CHECKING:
    from edgekd.preflight.findings import Report


def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RECIPE", help="An ONNX file, an artifact folder with one, or a recipe.")
    ],
    target: Annotated[str, typer.Option(help="Target; default all targets of the recipe.")] = "",
    chip: Annotated[str, typer.Option(help="Chip, for targets with several, e.g. rk3588.")] = "",
    build: Annotated[bool, typer.Option("--build", help="Also build an engine, run it and compare it.")] = False,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    json: JsonOption = False,
) -> None:
    """List the nodes that a target refuses, runs elsewhere or computes wrongly. Exit code 1 if a check fails."""
    from edgekd.cli.show import print_json

    reports = _reports(model, target, chip, build, set_)
    if json:
        print_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            _show(report)
    if not all(report.is_ok for report in reports):
        raise typer.Exit(1)


def _reports(model: str, target: str, chip: str, build: bool, set_: list[str]) -> list[Report]:
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.data.splits import open_split
    from edgekd.distill.plan import plan
    from edgekd.errors import UserError
    from edgekd.pipeline.checks import check_options, check_trainer
    from edgekd.preflight import check as run

    path, chosen = Path(model), run.Toward(target, chip) if target else None
    if path.is_dir() or path.suffix == ".onnx":
        if chosen is None:
            raise UserError(f"{model}: no target is given; add --target NAME")
        return [run.check(run.subject_of(path), chosen, build)]
    recipe = load_recipe(model, set_)
    check_options(recipe)
    check_trainer(recipe, ("teacher", "student"))
    if chosen is None and not recipe.engines:
        raise UserError(f"{model}: the recipe has no engines; add --target NAME")
    if recipe.teacher.train or recipe.student.train:
        plan(recipe)  # what cannot be trained or distilled is no better on a target
    return run.check_recipe(recipe, open_split(recipe, recipe.data.train).classes, chosen, build)


def _show(report: Report) -> None:
    chip = f" on {report.chip}" if report.chip else ""
    print(f"{report.model} for {report.target}{chip}: {'ok' if report.is_ok else 'no good engine to be expected'}")
    for one in report.findings:
        more = f" and {len(one.nodes) - 1} more" if len(one.nodes) > 1 else ""
        where = ", ".join(filter(None, [one.module, f"{one.operator} {one.nodes[0]}{more}" if one.nodes else ""]))
        print(f"  {one.consequence.replace('_', ' ')}: {where or 'the graph'}: {one.says}")
        print(f"    fix: {one.fix} ({one.evidence}; {one.source})")
    for name in ("parsed", "built", "ran", "matched"):
        verdict = getattr(report, name)
        print(f"  {name}: {verdict.answer} ({verdict.text})")

"""One command per stage group (`distill` has a file of its own): runs a recipe until there and prints the artifacts."""

from __future__ import annotations

from pathlib import Path

import typer

from edgekd.cli.run import JsonOption, OutOption, RecipeArg, SetOption

# Command -> (stage groups, help, what to do next).
COMMANDS = {
    "train": ("teacher,student", "Train the teacher and the plain student (the baseline).", "distill"),
    "export": ("export", "Export the student to ONNX and prove parity with torch.", "quantize"),
    "quantize": ("quantize", "Calibrate and quantize the ONNX model to int8.", "compile"),
    "compile": ("engine", "Compile the engines.", "bench"),
    "bench": ("bench", "Measure the latency of the engines.", "evaluate"),
    "evaluate": ("evaluate", "Score every network and engine.", "run"),
}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for name, (until, text, following) in COMMANDS.items():
        app.command(name, help=f"{text} Earlier stages are run when they are not done.")(_command(until, following))


def _command(until: str, following: str):  # type: ignore[no-untyped-def]  # typer reads the inner signature
    def command(recipe: RecipeArg, out: OutOption = None, set_: SetOption = [], json: JsonOption = False) -> None:  # noqa: B006
        run_until(recipe, out, set_, json, until, following)

    return command


def run_until(recipe: str, out: Path | None, set_: list[str], json: bool, until: str, following: str) -> None:
    """Run a recipe as far as the stage groups `until` and print their artifacts and the command that follows."""
    from edgekd import api, pipeline, planning
    from edgekd.cli import show
    from edgekd.core.recipe_loading import load_recipe
    from edgekd.report.stored import read_report

    loaded = load_recipe(recipe, set_)
    folder = out or pipeline.default_out(loaded)
    present = {stage.name.split("/")[0] for stage in planning.plan(loaded)}
    groups = ",".join(group for group in until.split(",") if group in present) or until
    ran = []

    def on_stage(stage_run: pipeline.StageRun) -> None:
        ran.append(stage_run)
        show.stage_line(stage_run)

    with show.failures() as failed:
        result = api.run(loaded, folder, until=groups, on_stage=on_stage, on_failure=failed.append)
        if json:
            show.print_json(result)
            return
        for stage_run in ran:
            if stage_run.stage.name.split("/")[0] in groups.split(","):
                print(folder / stage_run.stage.name)
        if until in ("bench", "evaluate"):
            show.print_results(read_report(folder))
        print(f"next: {show.command(following, recipe, '--out', str(folder), set_=set_)}")

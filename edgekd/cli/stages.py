"""One command per stage group (`distill` has its own file): runs a recipe up to it and prints the artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from edgekd.cli.run import (
    BoardOption,
    JsonOption,
    LoggerOption,
    OutOption,
    RecipeArg,
    SetOption,
    with_loggers,
)

# Command -> (stage groups, help, what to do next).
COMMANDS = {
    "train": ("teacher,student", "Train the teacher and the plain student (the baseline).", "distill"),
    "export": ("export", "Export the student to ONNX and prove parity with torch.", "quantize"),
    "quantize": ("quantize", "Calibrate and quantize the ONNX model to int8.", "compile"),
    "compile": ("engine", "Compile the engines.", "bench"),
    "bench": ("bench", "Measure the latency of the engines.", "evaluate"),
    "evaluate": ("evaluate,agreement", "Score every network and engine.", "run"),
}


# Those that work on boards.
ON_BOARDS = ("compile", "bench", "evaluate")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for name, (until, text, following) in COMMANDS.items():
        kind = _training if name == "train" else _on_boards if name in ON_BOARDS else _command
        made = kind(until, following)
        app.command(name, help=f"{text} Runs earlier stages that are not done.")(made)


def _command(until: str, following: str):  # type: ignore[no-untyped-def]  # typer reads the inner signature
    def command(recipe: RecipeArg, out: OutOption = None, set_: SetOption = [], json: JsonOption = False) -> None:  # noqa: B006
        run_until(Called(recipe, out, set_, json), until, following)

    return command


def _training(until: str, following: str):  # type: ignore[no-untyped-def]  # typer reads the inner signature
    def command(
        recipe: RecipeArg,
        out: OutOption = None,
        set_: SetOption = [],  # noqa: B006 - typer copies it
        logger: LoggerOption = [],  # noqa: B006
        json: JsonOption = False,
    ) -> None:
        run_until(Called(recipe, out, with_loggers(set_, logger), json), until, following)

    return command


def _on_boards(until: str, following: str):  # type: ignore[no-untyped-def]  # typer reads the inner signature
    def command(
        recipe: RecipeArg,
        out: OutOption = None,
        set_: SetOption = [],  # noqa: B006 - typer copies it
        board: BoardOption = [],  # noqa: B006
        json: JsonOption = False,
    ) -> None:
        run_until(Called(recipe, out, set_, json, board), until, following)

    return command


@dataclass(frozen=True)
class Called:
    """The arguments of a command that runs stages of a recipe."""

    recipe: str
    out: Path | None
    overrides: Sequence[str]
    json: bool
    boards: Sequence[str] = ()


def run_until(called: Called, until: str, following: str) -> None:
    """Run a recipe as far as the stage groups `until` and print their artifacts and the command that follows."""
    from edgekd import api, pipeline, planning
    from edgekd.cli import show
    from edgekd.core.recipe_loading import find_recipe, load_recipe
    from edgekd.executors.boards import connected
    from edgekd.report.stored import read_report

    loaded = load_recipe(called.recipe, called.overrides, called.boards)
    folder = called.out or pipeline.default_out(loaded)
    ran = []

    def on_stage(stage_run: pipeline.StageRun) -> None:
        ran.append(stage_run)
        show.stage_line(stage_run)

    with connected(find_recipe(called.recipe).parent), show.failures() as failed:
        present = {stage.group for stage in planning.plan(loaded)}
        groups = ",".join(group for group in until.split(",") if group in present) or until
        result = api.run(loaded, folder, until=groups, on_stage=on_stage, on_failure=failed.append)
        if called.json:
            show.print_json(result)
            return
        for stage_run in ran:
            if stage_run.stage.group in groups.split(","):
                print(folder / stage_run.stage.name)
        if following in ("evaluate", "run"):  # it measured
            show.print_results(read_report(folder))
        words = (called.recipe, "--out", str(folder))
        boards = called.boards if following in (*ON_BOARDS, "run") else ()
        print(f"next: {show.command(following, *words, set_=called.overrides, boards=boards)}")

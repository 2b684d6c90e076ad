"""The `edgekd` command: parses, calls one library function, prints. Results on stdout, logs and progress on stderr.

Exit codes: 0 ok, 1 a gate failed, 2 the input is wrong (one line says what), 70 a bug (traceback), 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from edgekd.cli import (
    board,
    bundle,
    check,
    compare,
    data,
    deploy,
    distill,
    doctor,
    gate,
    layers,
    predict,
    recipes,
    report,
    run,
    stack,
    stages,
    study,
    toolchain,
    tune,
)
from edgekd.cli.help import Commands, add_examples
from edgekd.core import inventory, user_code
from edgekd.core.ranks import is_first_process
from edgekd.errors import EdgekdError, PackageError, notes_of

app = typer.Typer(
    name="edgekd",
    cls=Commands,
    help="Train a small segmentation or detection network with the help of a large one, compile it for an edge chip, and measure it.",
    epilog="Begin with: edgekd run quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# click's UsageError: typer imported it from click, and has its own copy since 0.26.
_UsageError: Any = typer.BadParameter.__base__


def _version(value: bool) -> None:
    if value:
        from edgekd import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _global(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Also log the libraries' output and tracebacks."),
    boards: Path | None = typer.Option(
        None, metavar="FILE", help="Inventory of boards; default $EDGEKD_BOARDS, else boards.yaml."
    ),
) -> None:
    if boards is not None:
        os.environ[inventory.VARIABLE] = str(boards)
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(message)s")
    # torch has a handler of its own. On a machine without a GPU this logger warns that CUDA's toolkit is missing.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    logging.getLogger("edgekd").setLevel(logging.INFO if is_first_process() else logging.WARNING)
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("edgekd.cli").setLevel(logging.DEBUG)


app.command()(doctor.doctor)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.command()(check.check)
app.command()(run.run)
app.command()(distill.distill)
stages.add_to(app)
app.command()(study.study)
app.command()(tune.tune)
app.command()(layers.layers)
app.command()(predict.predict)
app.command()(report.report)
app.command()(compare.compare)
app.command()(gate.gate)
app.command()(bundle.bundle)
app.command()(deploy.deploy)
app.command()(stack.stack)
app.add_typer(board.app, name="board")
app.add_typer(toolchain.app, name="toolchain")


def command_line() -> Any:
    """Return the click command of `edgekd`, with its examples."""
    made = typer.main.get_command(app)
    add_examples(made)
    return made


def main() -> None:
    """Run the command line and exit with the code that the kind of error asks for."""
    try:
        _invoke()
        sys.stdout.flush()
    except typer.Exit as exc:
        sys.exit(exc.exit_code)
    except EdgekdError as exc:
        _fail(str(exc), exc.exit_code, notes_of(exc))
    except _UsageError as exc:
        _fail_usage(exc)
    except (KeyboardInterrupt, typer.Abort) as exc:
        _fail("interrupted; run the same command again to go on", 130, notes_of(exc))
    except BrokenPipeError:  # the reader of our stdout has gone: not our error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as exc:
        if (theirs := user_code.error_of(exc)) is not None:
            logging.getLogger("edgekd.cli").debug("", exc_info=exc)
            _fail(str(theirs), theirs.exit_code)
        _fail_absent(exc)
        traceback.print_exc()
        _fail("this is a bug of edgekd; please report it with the lines above", 70)


def _invoke() -> None:
    if "_EDGEKD_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name="edgekd")
    # Not `app()`: typer 0.29 exits without a message on interrupts and broken pipes.
    command = command_line()
    with command.make_context("edgekd", sys.argv[1:] or ["--help"]) as context:
        command.invoke(context)


def _fail_absent(exc: Exception) -> None:
    """Exit with one line when a package outside edgekd is not installed; return for another error."""
    from edgekd.core.plugins import packages_of

    if isinstance(exc, ModuleNotFoundError):
        with suppress(ModuleNotFoundError):  # a module of edgekd
            try:
                with packages_of("this command"):
                    raise exc
            except PackageError as absent:
                _fail(str(absent), absent.exit_code)


def _fail_usage(exc: Any) -> None:
    text = exc.format_message()
    if "\n" in text:  # a group without a command: the message is the group's help
        print(text, file=sys.stderr)
        sys.exit(exc.exit_code)
    command = exc.ctx.command_path if exc.ctx else "edgekd"
    pause = "" if text.endswith("?") else ";"
    _fail(f"{text.removesuffix('.')}{pause} see `{command} --help`", exc.exit_code)


def _fail(line: str, code: int, notes: Iterable[str] = ()) -> None:
    """Print one line for an error and one for each of its notes, and exit."""
    for one in (line, *notes):
        print(f"edgekd: {' '.join(one.splitlines())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""`edgekd board`: boards that build, run and measure engines over ssh."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.executors.ssh.checks import BoardCheck

app = typer.Typer(help="Add and check boards that ssh reaches. Installs nothing on them.", no_args_is_help=True)
NameArg = Annotated[str, typer.Argument(help="Name of the board in the inventory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name that recipes and reports use, e.g. orin.")],
    destination: Annotated[str, typer.Argument(help="What ssh takes: a Host of ~/.ssh/config, or user@host.")],
    folder: Annotated[str | None, typer.Option(help="edgekd's folder on the board; default ~/.cache/edgekd.")] = None,
    python: Annotated[str | None, typer.Option(help="Python of the board, 3.8 or newer; default python3.")] = None,
) -> None:
    """Connect to a board, detect its chip, and write it into the inventory."""
    from edgekd.executors.ssh.administration import add as add_board

    added = add_board(name, destination, folder, python)
    _print_checks(added.checks)
    print(added.file)
    is_ready = all(check.state != "wrong" for check in added.checks)
    print(f"next: edgekd run quickstart --board {name}" if is_ready else f"next: mend this; edgekd board doctor {name}")


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """List the boards of the inventory: chip, runtimes, current user."""
    from edgekd.cli.show import print_json
    from edgekd.core.inventory import load_inventory
    from edgekd.executors.ssh.administration import overview

    rows = overview()
    if json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        print(f"{load_inventory().path} has no boards; add one: edgekd board add NAME user@host")
    for row in rows:
        runtimes = ", ".join(f"{name} {version}" for name, version in row.runtimes.items()) or "no runtime"
        print(f"{row.name:12} {row.chip or '-':14} {row.ssh:20} {runtimes:32} {row.state}")


@app.command()
def doctor(name: NameArg, json: JsonOption = False) -> None:
    """Check a board. Each failed check says what to type. Exit code 2 when the board cannot be used."""
    from edgekd.cli.show import print_json
    from edgekd.executors.ssh.administration import doctor as examine

    checks = examine(name)
    if json:
        print_json([asdict(check) for check in checks])
    else:
        _print_checks(checks)
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(2)


@app.command()
def remove(
    name: NameArg,
    clean: Annotated[bool, typer.Option("--clean", help="First delete edgekd's files on the board.")] = False,
) -> None:
    """Remove a board from the inventory."""
    from edgekd.executors.ssh.administration import remove as remove_board

    print(remove_board(name, clean))


@app.command()
def cancel(name: NameArg) -> None:
    """Stop the job that is running on a board, also another user's."""
    from edgekd.executors.ssh.administration import cancel as cancel_job

    holder = cancel_job(name)
    print(f"ended: {holder}" if holder else f"no job runs on {name}")


def _print_checks(checks: list[BoardCheck]) -> None:
    for check in checks:
        print(f"{check.state:7} {check.name:20} {check.text}")
        if check.remedy:
            print(f"{'':28} -> {check.remedy}")

"""`edgekd deploy`: brings an engine to a board, lists, rolls back and removes releases there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.release.install import Step
    from edgekd.release.overview import NameRow


def deploy(
    source: Annotated[
        Path | None, typer.Argument(help="A bundle, or an engine's folder in its run, RUN/engine/ID.")
    ] = None,
    board: Annotated[str, typer.Option("--board", help="Board of the inventory.")] = ...,  # type: ignore[assignment]
    name: Annotated[str | None, typer.Option("--name", help="Name of the service; default the engine's id.")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="SSH key that signs an engine's bundle.")
    ] = None,
    older: Annotated[
        bool, typer.Option("--older", help="Accept an engine that is older than the current one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all checks on the board, then stop.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the releases of the board.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous release.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Stop the service and delete its releases.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Deploy an engine to a board: check it there, make it current, restart the service, roll back if it is not healthy.

    Exit code 1: the deployment failed, and the previous release runs. Exit code 2: wrong input, nothing was tried.
    """
    from edgekd.errors import UserError

    if [source is not None, list_, rollback, remove].count(True) != 1:
        raise UserError(
            "expected a bundle or an engine, or one of --list, --rollback, --remove; see `edgekd deploy --help`"
        )
    if source is not None:
        _deploy(source, (board, name), sign, (older, dry_run), json)
    elif list_:
        _list(board, name, json)
    elif rollback:
        from edgekd.deploy.deploy import roll_back

        _show_steps(roll_back(board, name), json)
    else:
        from edgekd.deploy.deploy import remove as remove_name

        print(f"removed {remove_name(board, name)} from {board}")


def _deploy(source: Path, place: tuple[str, str | None], sign: Path | None, how: tuple[bool, bool], json: bool) -> None:
    from edgekd.cli import show
    from edgekd.deploy.deploy import Conditions
    from edgekd.deploy.deploy import deploy as deploy_bundle
    from edgekd.deploy.source import bundle_of

    board, name = place
    with bundle_of(source, sign) as bundle:
        deployed = deploy_bundle(bundle, board, name, Conditions(*how), _Progress().show)
    _show_steps(deployed.steps, json)
    if not json:
        print("next: " + (deployed.next_command or show.command("deploy", "--list", boards=[board])))


class _Progress:
    """Prints a line on stderr for each step that the board has done."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, what: str, fraction: float) -> None:
        """Get the name of the last step that is done."""
        if what != self._shown:
            print(f"{what} ({fraction:.0%})", file=sys.stderr)
        self._shown = what


def _show_steps(steps: tuple[Step, ...], json: bool) -> None:
    from dataclasses import asdict

    from edgekd.cli.show import print_json

    if json:
        print_json({"steps": [asdict(step) for step in steps]})
        return
    for step in steps:
        print(f"{step.name:8} {step.text}")


def _list(board: str, name: str | None, json: bool) -> None:
    from dataclasses import asdict

    from edgekd.cli.show import print_json
    from edgekd.deploy.deploy import releases
    from edgekd.release.overview import lines_of

    rows: list[NameRow] = releases(board, name)
    if json:
        print_json([asdict(row) for row in rows])
        return
    print("\n".join(line for row in rows for line in lines_of(row)) or f"nothing is deployed on {board}")

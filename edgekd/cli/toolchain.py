"""`edgekd toolchain`: vendor compilers in separate virtualenvs."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Install and check vendor compilers, each in a virtualenv of its own.", no_args_is_help=True)
NameArg = Annotated[str, typer.Argument(help="A toolchain, e.g. rknn (edgekd toolchain list).")]
FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Folder of the toolchains; default $EDGEKD_TOOLCHAINS or the user's cache folder."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def install(name: NameArg, folder: FolderOption = None) -> None:
    """Install a toolchain into a separate virtualenv, from locked requirements."""
    from edgekd.executors import venvs

    made = venvs.install(venvs.lock_of(name), venvs.root_of(folder))
    print(made.path)
    if folder is not None:
        print(
            f"next: export {venvs.ROOT_VARIABLE}={shlex.quote(str(made.path.parent))}   # where the other commands look"
        )
    print(f"next: edgekd toolchain doctor {name}")


@app.command("list")
def list_(folder: FolderOption = None, json: JsonOption = False) -> None:
    """List all toolchains, and whether each is installed."""
    from edgekd.cli.show import print_json
    from edgekd.executors.doctor import overview

    found = overview(folder)
    if json:
        print_json(found)
        return
    for one in found:
        size_bytes = one["size_bytes"]
        state = "not installed" if size_bytes is None else f"{size_bytes / 1e9:.1f} GB in {one['path']}"
        print(
            f"{one['name']:12} {one['version']:10} {state}{'' if one['current'] else ' (of another edgekd; not used)'}"
        )


@app.command()
def remove(name: NameArg, folder: FolderOption = None) -> None:
    """Remove every virtualenv of a toolchain."""
    from edgekd.executors import venvs

    for path in venvs.remove(name, venvs.root_of(folder)):
        print(path)


@app.command()
def doctor(name: NameArg, folder: FolderOption = None, json: JsonOption = False) -> None:
    """Check that a toolchain is installed, matches its lock file, and starts. Exit code 1 if a check fails."""
    from edgekd.cli.show import print_json
    from edgekd.executors.doctor import examine

    checks = examine(name, folder)
    if json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{'ok     ' if check.ok else 'wrong  '}  {check.name:12} {check.text}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)

"""`edgekd stack`: files that let other software run an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def stack(
    engine: Annotated[Path, typer.Argument(help="Engine's folder, e.g. runs/quickstart/engine/openvino-int8.")],
    name: Annotated[
        str, typer.Option("--for", metavar="NAME", help="The software; without it, those that take the engine.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("stack"),
) -> None:
    """Write the files with which DeepStream, Triton or OpenVINO's Model API run an engine without a parser of your own.

    Without --for, lists the software that takes the engine, and why the others do not.
    """
    from edgekd import stacks
    from edgekd.core import plugins
    from edgekd.core.artifact import open_artifact
    from edgekd.core.workspace import disk_errors

    given = stacks.engine_of(open_artifact(engine))
    if not name:
        for one, reason in stacks.refusals(given).items():
            print(f"{one:12} {plugins.load('stacks', one).TITLE}{f': no: {reason}' if reason else ''}")
        return
    with disk_errors(out):
        steps = stacks.write(name, given, out)
    print(out)
    print(f"next: cd {shlex.quote(str(out))}")
    for step in steps:
        print(f"next: {step}")

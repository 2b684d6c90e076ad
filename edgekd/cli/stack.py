"""`edgekd stack`: files that let other software run an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def stack(
    engine: Annotated[Path, typer.Argument(help="Engine's folder, e.g. runs/quickstart/engine/openvino-int8.")],
    name: Annotated[str, typer.Option("--for", metavar="NAME", help="Name of the software, e.g. triton.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("stack"),
) -> None:
    """Write the configuration and parser that DeepStream, Triton or OpenVINO Model API need to run an engine.

    Without --for, lists the software that can run the engine, and the reason for each one that cannot.
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

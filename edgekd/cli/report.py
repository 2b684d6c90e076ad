"""`edgekd report`: prints a finished run's table and writes its page again; imports no framework."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Output folder of `edgekd run`.")],
    stages: Annotated[
        bool, typer.Option("--stages", help="Also print the time by stage, load time and memory of each engine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Print the table of a run and write its page, report.html.

    When the page cannot be written, the command still prints the table, and one line on stderr says why.
    """
    from edgekd.cli import show
    from edgekd.core.workspace import disk_errors
    from edgekd.errors import PackageError, WorkspaceError
    from edgekd.report.collect import write_page
    from edgekd.report.stored import read_report

    content = read_report(run)
    if json:
        show.print_json(content.to_dict())
        return
    show.print_results(content)
    if stages:
        show.print_stages(content)
    folder = run if run.is_dir() else run.parent
    try:
        with disk_errors(folder):
            page = write_page(content, folder)
    except (PackageError, WorkspaceError) as exc:
        print(f"edgekd: the page is not written: {exc}", file=sys.stderr)
    else:
        print(f"\nreport: {page}")

"""`edgekd report`: prints a finished run's table and writes its page anew; imports no framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Output folder of `edgekd run`.")],
    json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Print the result table of a run and write report.html from its report.json."""
    from edgekd.cli import show
    from edgekd.core.workspace import disk_errors
    from edgekd.report.collect import write_page
    from edgekd.report.stored import read_report

    content = read_report(run)
    if json:
        show.print_json(content.to_dict())
        return
    folder = run if run.is_dir() else run.parent
    with disk_errors(folder):
        page = write_page(content, folder)
    show.print_results(content)
    print(f"\nreport: {page}")

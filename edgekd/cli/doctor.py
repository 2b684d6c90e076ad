"""`edgekd doctor`: checks this machine, and prints the commands that install missing parts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check this machine: Python, hardware, stages, targets. Print the command that installs what is missing."""
    from edgekd.cli.show import print_json
    from edgekd.doctor import examine

    findings = examine()
    if json:
        print_json(asdict(findings))
        return
    for finding in findings.checks:
        mark = "ok     " if finding.ok else "missing"
        print(f"{mark}  {finding.name:22} {finding.text}")
    for name, text in findings.state.items():
        print(f"state    {name:22} {text}")
    for line in findings.unreadable:
        print(f"unknown  {line}")
    for note in findings.notes:
        print(f"note     {note}")
    print("next:    edgekd run quickstart")

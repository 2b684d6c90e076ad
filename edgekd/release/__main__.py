"""`python -m edgekd.release FOLDER COMMAND`: changes what serves on this board, without the host; FOLDER is that of a name.

Exit codes: 0 done, 1 the release before serves (one line says why), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Iterator, List

from edgekd.errors import DeployError, EdgekdError, one_line
from edgekd.release.health import LIMIT_S, why_unhealthy
from edgekd.release.install import Step, Wanted, install, roll_back
from edgekd.release.overview import lines_of, remove, row_of
from edgekd.release.releases import Releases
from edgekd.release.service import Unit
from edgekd.runner.manifest import read_manifest


def main(arguments: List[str]) -> int:
    """Do one command and return the exit code."""
    given, rest = _parser().parse_known_args(arguments)
    if rest and given.command != "service":
        _parser().error(f"unknown arguments: {' '.join(rest)}")
    folder = Path(os.path.abspath(given.folder))
    try:
        releases = Releases(folder.parent, folder.name)
        if given.command == "list":
            _say("\n".join(lines_of(row_of(releases))))
        elif given.command == "rollback":
            _show(roll_back(releases))
        elif given.command == "install":
            current = releases.current()
            wanted = Wanted(
                bundle=Path(given.bundle),
                needs_signature=given.signed,
                may_be_older=given.older,
                is_dry=given.dry_run,
                variables=releases.variables(current) if current else {},
                health_s=given.health_s,
            )
            _show(install(releases, wanted))
        elif given.command == "remove":
            remove(releases)
        else:
            _serve(releases, rest)
    except EdgekdError as exc:
        sys.stderr.write(f"{one_line(exc, None)}\n")
        return exc.exit_code
    except OSError as exc:  # e.g. a disk that is read-only since an error
        sys.stderr.write(f"{one_line(exc, None)}; look at the disk, and at who owns the folder\n")
        return DeployError.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgekd.release", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of the name, e.g. ~/.local/share/edgekd/NAME")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the releases")
    commands.add_parser("rollback", help="go back to the release before this one")
    commands.add_parser("remove", help="stop the service and delete all its releases")
    commands.add_parser(
        "service", help="run it as a systemd user unit; further arguments are the runner's, e.g. --http 8080"
    )
    one = commands.add_parser("install", help="check a bundle and switch to it")
    one.add_argument("bundle")
    one.add_argument("--signed", action="store_true", help="refuse a bundle that is not signed")
    one.add_argument("--older", action="store_true", help="take an older version than the current one")
    one.add_argument(
        "--health-s", type=float, default=LIMIT_S, help="seconds in which the service has to become healthy"
    )
    one.add_argument("--dry-run", action="store_true", help="do all checks, and switch nothing")
    return parser


def _serve(releases: Releases, arguments: List[str]) -> None:
    """Install the unit and wait until it is healthy; DeployError when it is not."""
    unit = Unit(releases.folder)
    with releases.locked() as unfinished:
        _say("\n".join(unit.install(arguments, lambda path, text: releases.put(path, text, unfinished))))
        if why := why_unhealthy(unit, read_manifest(releases.folder / "current").version):
            raise DeployError(f"{unit.name} is enabled, but not healthy: {why}")


def _show(steps: Iterator[Step]) -> None:
    for step in steps:
        _say(f"{step.name:8} {step.text}")


def _say(text: str) -> None:
    """Print a line; that nobody reads it any more does not stop an installation between a switch and its health check."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

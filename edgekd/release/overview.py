"""Lists the releases on this board by name. Portable: standard library only, Python 3.8."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from edgekd.errors import DeployError, EdgekdError, one_line
from edgekd.release.releases import Releases, names
from edgekd.release.service import Unit
from edgekd.runner.manifest import read_manifest


@dataclass(frozen=True)
class ReleaseRow:
    """A release (JSON-ready).

    engine: id of its engine; version: of the bundle. fault: why these are unknown, else "".
    is_current: whether it serves. is_previous: whether `rollback` goes to it.
    """

    release: str
    engine: str
    version: Optional[int]
    is_current: bool
    is_previous: bool
    fault: str


@dataclass(frozen=True)
class NameRow:
    """A name with its releases, the newest first (JSON-ready).

    state: systemd's state of its unit; `no unit` if none is enabled.
    address: where it serves HTTP, "" when it does not.
    fault: fault of the folder, "" without one.
    """

    name: str
    folder: str
    state: str
    address: str
    releases: Tuple[ReleaseRow, ...]
    fault: str


def overview(root: Path) -> List[NameRow]:
    """Return a row for each name that has releases in a folder."""
    return [row_of(Releases(root, name)) for name in names(root)]


def row_of(releases: Releases) -> NameRow:
    """Return the row of one name."""
    fault, current, before = "", None, None
    try:
        current = releases.current()
        before = releases.previous(current) if current else None
    except DeployError as exc:
        fault = one_line(exc, None)
    unit = Unit(releases.folder)
    address = unit.address()
    return NameRow(
        name=releases.name,
        folder=str(releases.folder),
        state=unit.state().active if unit.is_there() else "no unit",
        address="{}:{}".format(*address) if address and unit.is_there() else "",
        releases=tuple(_release(releases, one, current, before) for one in releases.all()),
        fault=fault,
    )


def lines_of(row: NameRow) -> Iterator[str]:
    """Yield a name and its releases as lines of text."""
    yield f"{row.name}: {row.state}{f', http://{row.address}' if row.address else ''}{f', {row.fault}' if row.fault else ''}"
    for one in row.releases:
        mark = "current" if one.is_current else "previous" if one.is_previous else ""
        yield f"  {one.release:20} {mark:10} {one.engine} {one.version or ''} {one.fault}".rstrip()


def remove(releases: Releases) -> None:
    """Stop the unit of a name and delete its releases; DeployError when there are none, or another process changes them."""
    if releases.name not in names(releases.root):
        known = ", ".join(names(releases.root)) or "none"
        raise DeployError(f"{releases.folder}: no releases; known names: {known}")
    with releases.locked():
        Unit(releases.folder).stop()
        shutil.rmtree(str(releases.folder))


def _release(releases: Releases, release: str, current: Optional[str], before: Optional[str]) -> ReleaseRow:
    engine, version, fault = "", None, ""
    try:
        manifest = read_manifest(releases.path(release))
        engine, version = manifest.name, manifest.version
    except EdgekdError as exc:
        fault = one_line(exc, None)
    return ReleaseRow(release, engine, version, release == current, release == before, fault)

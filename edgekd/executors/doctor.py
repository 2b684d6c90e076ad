"""Installed and available toolchains, and checks of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from edgekd.board.job import Job
from edgekd.errors import EdgekdError, ToolchainError
from edgekd.executors import venvs
from edgekd.executors.logs import LOG
from edgekd.executors.toolchain import ToolchainExecutor


@dataclass(frozen=True)
class Check:
    """One check: whether it passed, and its finding in words."""

    name: str
    ok: bool
    text: str


class ToolchainRow(TypedDict):
    """A toolchain (JSON); `current`: made from the present lock."""

    name: str
    version: str
    installed: bool
    current: bool
    path: str | None
    size_bytes: int | None


def overview(folder: Path | None = None) -> list[ToolchainRow]:
    """Return the toolchains that can be installed, then those of other edgekd versions that are installed."""
    root = venvs.root_of(folder)
    found = {one.path: one for one in venvs.installed(root)}
    rows: list[ToolchainRow] = []
    for name, lock in venvs.locks().items():
        here = found.pop(root / lock.folder, None)
        rows.append(_row(here) if here else _absent(name, lock.version))
    return rows + [{**_row(one), "current": False} for one in found.values()]


def examine(name: str, folder: Path | None = None) -> list[Check]:
    """Return checks of one toolchain; the later ones only when it is installed.

    Raises:
        ToolchainError: no toolchain has this name.
    """
    root, lock = venvs.root_of(folder), venvs.lock_of(name)
    try:
        found = venvs.find(lock, root)
    except ToolchainError as exc:
        return [Check("installed", False, str(exc))]
    checks = [Check("installed", True, f"{found.version}, Python {found.python_version}, {found.path}")]
    actual, wanted = venvs.packages_in(found.path), found.packages
    changed = [
        f"{package} {version} instead of {wanted.get(package)}"
        for package, version in actual.items()
        if wanted.get(package) != version
    ]
    changed += [f"{package} is gone" for package in wanted if package not in actual]
    changed += [
        f"{package} {actual[package]} instead of the locked {version}"
        for package, version in venvs.pinned(lock).items()
        if actual.get(package, version) != version
    ]
    text = "; ".join(dict.fromkeys(changed)) or f"{len(actual)}, as they were installed"
    checks.append(Check("packages", not changed, text))
    with TemporaryDirectory() as log_folder:
        try:
            folder = Path(log_folder)
            value = ToolchainExecutor(name, root).run_job(Job("version", name), {}, folder, folder / LOG)
            checks.append(Check("starts", True, f"says it is version {value['runtime_version']}"))
        except EdgekdError as exc:
            checks.append(Check("starts", False, str(exc)))
    return checks


def _row(found: venvs.Installed) -> ToolchainRow:
    return {
        "name": found.name,
        "version": found.version,
        "installed": True,
        "current": True,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
    }


def _absent(name: str, version: str) -> ToolchainRow:
    return {"name": name, "version": version, "installed": False, "current": True, "path": None, "size_bytes": None}

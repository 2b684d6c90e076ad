"""What is to be said of toolchains: which there are, and whether one works."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.job import Job
from edgekd.errors import EdgekdError, ToolchainError
from edgekd.executors import venvs
from edgekd.executors.builder import LOG
from edgekd.executors.toolchain import ToolchainExecutor


def overview(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return name, version, installed, current (made from the present lock), path and size_bytes of each toolchain."""
    root = venvs.root_of(folder)
    found = {one.path: one for one in venvs.installed(root)}
    rows = []
    for name, lock in venvs.locks().items():
        here = found.pop(root / lock.folder, None)
        rows.append(_row(here) if here else _absent(name, lock.version))
    return rows + [{**_row(one), "current": False} for one in found.values()]


def examine(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Return checks (name, ok, text) of one toolchain; the later ones only when it is installed.

    Raises:
        ToolchainError: no toolchain is called that.
    """
    root, lock = venvs.root_of(folder), venvs.lock_of(name)
    try:
        found = venvs.find(lock, root)
    except ToolchainError as exc:
        return [{"name": "installed", "ok": False, "text": str(exc)}]
    checks = [
        {"name": "installed", "ok": True, "text": f"{found.version}, Python {found.python_version}, {found.path}"}
    ]
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
    checks.append({"name": "packages", "ok": not changed, "text": text})
    with TemporaryDirectory() as log_folder:
        try:
            folder = Path(log_folder)
            value = ToolchainExecutor(name, root).run_job(Job("version", name), {}, folder, folder / LOG)
            checks.append({"name": "starts", "ok": True, "text": f"says it is version {value['runtime_version']}"})
        except EdgekdError as exc:
            checks.append({"name": "starts", "ok": False, "text": str(exc)})
    return checks


def _row(found: venvs.Installed) -> dict[str, Any]:
    return {
        "name": found.name,
        "version": found.version,
        "installed": True,
        "current": True,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
    }


def _absent(name: str, version: str) -> dict[str, Any]:
    return {"name": name, "version": version, "installed": False, "current": True, "path": None, "size_bytes": None}

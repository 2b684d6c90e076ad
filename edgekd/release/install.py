"""Installs a bundle on this board: everything is checked beside the current release, then one rename switches.

    room, unpack (signature, sums), fit, golden outputs, place, switch, restart, health

Up to `switch` the serving release is untouched. After it, an unhealthy service is switched back. Each step is yielded
when it is done. Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, List, Mapping, Optional

from edgekd.errors import BundleError, DeployError, EdgekdError
from edgekd.release.archive import RUN, unpack
from edgekd.release.fit import check_fit
from edgekd.release.health import LIMIT_S, why_unhealthy
from edgekd.release.releases import SIGNERS, Releases, room
from edgekd.release.service import Unit
from edgekd.release.signature import check_signer, check_unknown_signer, signing_key
from edgekd.release.sums import check_folder
from edgekd.runner.manifest import Manifest, read_manifest

STEPS = ("room", "unpack", "fit", "golden", "place", "switch", "restart", "health", "tidy")
CONTROL = "control"
_SCRIPT = Path(__file__).with_name("control.sh")
_ROOM = 1.1  # a file system needs more room than its files have bytes
_RESERVE = 4 << 20
_GOLDEN_S = 600.0
_SPEAKER = "edgekd: "  # of the runner's messages


@dataclass(frozen=True)
class Wanted:
    """A requested installation and its conditions.

    bundle: file.
    chip: chip of this board; None if unknown.
    needs_signature: refuse an unsigned bundle, also if the board has no `allowed_signers`.
    may_be_older: accept a lower version than the current one.
    is_dry: do all checks, and switch nothing.
    variables: environment variables of the release's processes.
    health_s: time in which its service has to become healthy.
    """

    bundle: Path
    chip: Optional[str] = None
    needs_signature: bool = False
    may_be_older: bool = False
    is_dry: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    health_s: float = LIMIT_S


@dataclass(frozen=True)
class Step:
    """A finished step: one of `STEPS`, and its result in words."""

    name: str
    text: str


def install(releases: Releases, wanted: Wanted) -> Iterator[Step]:
    """Make a bundle the current release of a name, and yield each step when it is done.

    Raises:
        DeployError: the release did not become current; the previous one serves. The text has the step and the reason.
    """
    variables = {"EDGEKD_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1", **wanted.variables}
    with releases.locked() as unfinished:
        with _step("room"):
            yield Step("room", _check_room(releases.folder, wanted.bundle))
        unpacked = unfinished / "bundle"
        with _step("unpack"):
            said: List[str] = []
            release = unpack(
                wanted.bundle, unpacked, lambda *head: said.append(_check_trust(releases.root, wanted, *head))
            )
            yield Step("unpack", f"release {release}, all sums right, {said[0]}")
        with _step("fit"):
            manifest, before = read_manifest(unpacked), releases.proven()
            _check_version(releases, manifest, before, wanted.may_be_older)
            yield Step("fit", check_fit(manifest, wanted.chip))
        with _step("golden"):
            yield Step("golden", run_golden(unpacked, variables))
        if wanted.is_dry:
            return
        with _step("place"):
            release = _place(releases, unpacked, release)
            releases.describe(release, variables, before, unfinished)
            releases.put(releases.folder / CONTROL, _SCRIPT.read_text(encoding="utf-8"), unfinished, 0o700)
            yield Step("place", str(releases.path(release)))
        with _step("switch"):
            releases.begin_trial(before, unfinished)
            releases.switch(release, unfinished)
            yield Step("switch", f"{before or 'nothing'} -> {release}")
        yield from _serve(releases, before, unfinished, wanted.health_s)
        yield Step("tidy", _tidy(releases, unfinished))


def roll_back(releases: Releases, health_s: float = LIMIT_S) -> Iterator[Step]:
    """Make the previous release current again; steps and errors as `install`."""
    with releases.locked() as unfinished:
        current = releases.current()
        before = releases.previous(current) if current else None
        if before is None:
            raise DeployError(f"{releases.folder}: no earlier release is kept; deploy one")
        with _step("switch"):
            check_folder(releases.path(before))
            releases.begin_trial(releases.proven(), unfinished)
            releases.switch(before, unfinished)
            yield Step("switch", f"{current} -> {before}")
        yield from _serve(releases, current, unfinished, health_s)


def _serve(releases: Releases, before: Optional[str], unfinished: Path, health_s: float) -> Iterator[Step]:
    """Restart the unit of a name that was switched, and wait until it is healthy; else switch back.

    Args:
        releases: releases of the name.
        before: the release that served, None for none.
        unfinished: folder that `Releases.locked` gives.
        health_s: longest wait.

    Raises:
        DeployError: not healthy; the release before it serves again.
    """
    unit = Unit(releases.folder)
    if not unit.is_there():
        releases.end_trial()
        yield Step("restart", f"no unit {unit.name}; whatever runs {releases.folder}/current has to be restarted")
        return
    why = _why_it_does_not_serve(releases, unit, health_s)
    if why:
        raise DeployError(f"health: {why}; {_switch_back(releases, unit, before, unfinished, health_s)}")
    releases.end_trial()
    yield Step("restart", unit.name)
    address = unit.address()
    yield Step("health", "http://{}:{}/health".format(*address) if address else "it runs")


def _why_it_does_not_serve(releases: Releases, unit: Unit, health_s: float) -> str:
    try:
        version = read_manifest(releases.folder / "current").version
        unit.restart()
    except EdgekdError as exc:
        return str(exc)
    return why_unhealthy(unit, version, health_s)


def _switch_back(releases: Releases, unit: Unit, before: Optional[str], unfinished: Path, health_s: float) -> str:
    """Undo a switch and return the outcome in words."""
    if before is None:
        releases.withdraw()
        releases.end_trial()
        unit.stop()
        return "there was no release before it, so the service is stopped"
    if before == releases.current():
        return "it was the current release before, too"
    releases.switch(before, unfinished)
    releases.end_trial()
    why = _why_it_does_not_serve(releases, unit, health_s)
    return (
        f"switched back to {before}, which is not healthy either: {why}"
        if why
        else f"switched back to {before}, which serves"
    )


def run_golden(folder: Path, variables: Mapping[str, str]) -> str:
    """Compare the release's engine with the golden outputs, in a child process with the release's own code.

    Returns:
        The last line that it prints.

    Raises:
        BundleError: the outputs differ, the engine does not open, or the process crashed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        ["sh", str(folder / RUN), "--check"], cwd=str(folder), env={**environment, **variables}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said = process.communicate(timeout=_GOLDEN_S)[0].decode(errors="replace")
    except subprocess.TimeoutExpired as exc:
        raise BundleError(f"no answer within {_GOLDEN_S:g} s") from exc
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = ([line.strip() for line in said.splitlines() if line.strip()] or ["it printed nothing"])[-1]
    if process.returncode < 0:
        raise BundleError(f"the engine's process died by {signal.Signals(-process.returncode).name}: {last}")
    if process.returncode:
        raise BundleError(last[len(_SPEAKER) :] if last.startswith(_SPEAKER) else last)
    return last


def _tidy(releases: Releases, unfinished: Path) -> str:
    try:
        return f"deleted: {', '.join(releases.prune(unfinished)) or 'nothing'}"
    except OSError as exc:  # the new release serves
        return f"old releases are not deleted: {exc}"


def _check_room(folder: Path, bundle: Path) -> str:
    free, needed = room(folder), int(_ROOM * bundle.stat().st_size) + _RESERVE
    if free < needed:
        raise DeployError(
            f"no room in {folder}: {free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed; make room there"
        )
    return f"{free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed"


def _check_trust(root: Path, wanted: Wanted, sums: bytes, signature: Optional[bytes]) -> str:
    """Return the signer of a bundle in words; BundleError if this board does not trust it."""
    signers = root / SIGNERS
    if os.path.lexists(str(signers)):
        signer = check_signer(sums, signature, signers)
        return f"signed by {signer.principal} ({signer.key})"
    if wanted.needs_signature:
        raise BundleError(
            f"the inventory requires a signature, but {signers} is missing; write the accepted signers into it"
        )
    if signature is None:
        return "not signed"
    if shutil.which("ssh-keygen") is None:  # a board with dropbear
        return f"signature by {signing_key(signature)}, not checked: no ssh-keygen here, and no {signers}"
    return f"signed by {check_unknown_signer(sums, signature).key}, not verified: no {signers}"


def _check_version(releases: Releases, manifest: Manifest, before: Optional[str], may_be_older: bool) -> None:
    if before is None or may_be_older:
        return
    try:
        served = read_manifest(releases.path(before)).version
    except BundleError as exc:
        raise BundleError(f"the version of the current release is not known, so it cannot be compared: {exc}; "
                          "to install without that: --older") from exc  # fmt: skip
    if manifest.version < served:
        raise BundleError(
            f"version {manifest.version} is older than the current {served}; to deploy it anyway, give --older"
        )


def _place(releases: Releases, unpacked: Path, release: str) -> str:
    """Make an unpacked bundle a release, and return its id; one that is there and whole is used again."""
    for number in range(1, 100):
        name = release if number == 1 else f"{release}-{number}"
        if not releases.path(name).exists():
            releases.place(unpacked, name)
            return name
        if _is_whole(releases.path(name)):
            return name
    raise DeployError(f"{releases.folder}: 99 damaged copies of release {release}; delete them, and look at the disk")


def _is_whole(folder: Path) -> bool:
    try:
        return bool(check_folder(folder))
    except (BundleError, OSError):
        return False


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Add the name of the step to errors inside the block."""
    try:
        yield
    except EdgekdError as exc:
        raise DeployError(f"{name}: {exc}") from exc
    except OSError as exc:
        what = "the disk is full" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else str(exc)
        raise DeployError(f"{name}: {what}") from exc

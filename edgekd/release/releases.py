"""The releases of one name on a board: unfinished ones apart, one of them current, switched by one rename.

    NAME/releases/<id>/             an unpacked bundle
    NAME/releases/<id>.env          variables of its processes, for sh
    NAME/releases/<id>.previous     id of the release before it
    NAME/current -> releases/<id>   the release that serves
    NAME/trial                      from a switch until the service is healthy: id of the release before it
    NAME/lock                       held by the process that changes something
    NAME/.in-<process>/             unfinished work; the next process that locks deletes it

A power cut or a kill at any time leaves the old or the new release current. Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional

from edgekd.errors import DeployError

KEPT = 3
SIGNERS = "allowed_signers"  # in the root, beside the names
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ID = re.compile(r"[0-9a-f]{16}(-[0-9]{1,3})?")


def check_name(name: str) -> str:
    """Return a name that can be a folder's and a unit's unchanged; DeployError for another."""
    if not _NAME.fullmatch(name) or name == SIGNERS:
        raise DeployError(
            f"name {name!r}: expected letters, digits, '.', '_' and '-', at most 63; choose another with --name"
        )
    return name


class Releases:
    """The releases of one name.

    Args:
        root: folder of all names on this board.
        name: name of the service, as in `check_name`.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, check_name(name)
        self.folder = root / name
        self._link, self._trial = self.folder / "current", self.folder / "trial"

    @contextmanager
    def locked(self) -> Iterator[Path]:
        """Lock the name, delete unfinished work of other processes, and yield an empty folder for this process.

        Raises:
            DeployError: another process has the lock.
        """
        (self.folder / "releases").mkdir(parents=True, exist_ok=True)
        with open(str(self.folder / "lock"), "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise DeployError(f"{self.folder}: another process changes its releases; try again later") from exc
            except OSError as exc:
                raise DeployError(f"{lock.name}: cannot be locked ({exc.strerror}); use a disk of this board") from exc
            for left in self.folder.glob(".in-*"):
                shutil.rmtree(str(left))
            unfinished = self.folder / f".in-{os.getpid()}"
            unfinished.mkdir()
            try:
                yield unfinished
            finally:
                shutil.rmtree(str(unfinished), ignore_errors=True)

    def all(self) -> List[str]:
        """Return the ids of all releases, the last placed first."""
        found = [path for path in (self.folder / "releases").glob("*") if path.is_dir() and _ID.fullmatch(path.name)]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def current(self) -> Optional[str]:
        """Return the id of the release that serves, None before the first; DeployError for a link that is not ours."""
        try:
            target = os.readlink(str(self._link))
        except FileNotFoundError:
            return None
        folder, _, release = target.rpartition("/")
        if folder != "releases" or not _ID.fullmatch(release) or not self.path(release).is_dir():
            raise DeployError(f"{self._link}: expected a link to one of releases/, got {target!r}; remove it")
        return release

    def proven(self) -> Optional[str]:
        """Return the id of the last release whose trial ended well; the current one, unless a kill cut its trial short."""
        try:
            found = self._trial.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return self.current()
        return found if _ID.fullmatch(found) and self.path(found).is_dir() else None

    def begin_trial(self, before: Optional[str], unfinished: Path) -> None:
        """Note which release is proven, before a switch to another one."""
        self.put(self._trial, f"{before or ''}\n", unfinished)

    def end_trial(self) -> None:
        """Note that the current release is proven."""
        self._trial.unlink(missing_ok=True)

    def path(self, release: str) -> Path:
        """Return the folder of a release."""
        return self.folder / "releases" / release

    def previous(self, release: str) -> Optional[str]:
        """Return the id of the release that served before `release`, None if none is kept."""
        try:
            found = self._beside(release, "previous").read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return found if _ID.fullmatch(found) and self.path(found).is_dir() else None

    def variables(self, release: str) -> Dict[str, str]:
        """Return the variables of a release's processes, {} for one without."""
        try:
            words = shlex.split(self._beside(release, "env").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return dict(word.partition("=")[::2] for word in words if "=" in word)

    def place(self, unpacked: Path, release: str) -> None:
        """Make an unpacked bundle, which is in the folder of `locked`, a release; on the disk when this returns."""
        sync_tree(unpacked)
        os.rename(str(unpacked), str(self.path(release)))
        os.utime(str(self.path(release)))
        sync_folder(self.folder / "releases")

    def describe(self, release: str, variables: Mapping[str, str], previous: Optional[str], unfinished: Path) -> None:
        """Write the files beside a release: the variables of its processes, and its previous release."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())]
        self.put(self._beside(release, "env"), "".join(lines), unfinished)
        if previous is not None and previous != release:
            self.put(self._beside(release, "previous"), f"{previous}\n", unfinished)

    def switch(self, release: str, unfinished: Path) -> None:
        """Make a release the current one, by one rename; on the disk when this returns."""
        link = unfinished / "current"
        link.symlink_to(f"releases/{release}")
        os.rename(str(link), str(self._link))
        sync_folder(self.folder)

    def withdraw(self) -> None:
        """Leave no release current."""
        self._link.unlink()
        sync_folder(self.folder)

    def prune(self, unfinished: Path) -> List[str]:
        """Delete old releases and return their ids; the current one, the one before it and the newest stay."""
        current = self.current()
        first = [current, self.previous(current) if current else None]
        order = [one for one in first if one] + [one for one in self.all() if one not in first]
        for release in order[KEPT:]:
            os.rename(str(self.path(release)), str(unfinished / release))
            for ending in ("env", "previous"):
                self._beside(release, ending).unlink(missing_ok=True)
        return order[KEPT:]

    def put(self, path: Path, text: str, unfinished: Path, mode: int = 0o600) -> None:
        """Write a file atomically and durably: after a power cut it has the old or the new content."""
        new = unfinished / path.name
        descriptor = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)  # variables may hold a password
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        os.replace(str(new), str(path))
        sync_folder(path.parent)

    def _beside(self, release: str, ending: str) -> Path:
        return self.folder / "releases" / f"{release}.{ending}"


def names(root: Path) -> List[str]:
    """Return the names that have releases."""
    found = [path.name for path in root.glob("*") if _NAME.fullmatch(path.name) and path.name != SIGNERS]
    return sorted(name for name in found if Releases(root, name).all())


def room(folder: Path) -> int:
    """Return the free bytes of a folder's disk, also of a folder that is not there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(str(folder)).free


def sync_tree(folder: Path) -> None:
    """Wait until all files and folders below a folder are on the disk."""
    for place, _, files in os.walk(str(folder)):
        for name in files:
            _sync(os.path.join(place, name))
        _sync(place)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    _sync(str(folder))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

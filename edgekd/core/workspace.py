"""The output folder of a run: its lock, artifacts and unfinished work.

DIR/<stage>/                 finished artifacts
DIR/.work/<stage>-<key>/     unfinished ones; training resumes from `_scratch` in here
DIR/.previous/<stage>-<key>/ artifacts of other settings, restored when a recipe has those settings again
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgekd.board.files import is_full
from edgekd.core.artifact import MANIFEST, SCRATCH, Artifact, drop_scratch, open_artifact
from edgekd.errors import ArtifactError, EdgekdError, WorkspaceError

log = logging.getLogger(__name__)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of one file or folder, which the error has to name: a device or a socket can be forbidden as well.
_FILE_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO)
_ADVICE = "finished stages are kept: make room or allow writing, and run the same command again"


class Workspace:
    """Absolute paths of one output folder (child processes have other working folders). Lock it before writing."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._reported: set[str] = set()

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[Workspace]:
        """Hold the folder for this process; the lock ends with the process, also with `kill -9`.

        Args:
            wait: wait for another run to leave the folder, instead of raising.

        Raises:
            WorkspaceError: another run holds it, or the disk is full or not writable (also while inside).
        """
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as exc:
                if not wait:
                    raise WorkspaceError(
                        f"{self.root}: another edgekd run is working in it; wait for it or use another --out"
                    ) from exc
                log.info("%s: another edgekd run is working in it; waiting for it", self.root)
                lock.acquire()
            try:
                shutil.rmtree(self._failures, ignore_errors=True)  # of an earlier run
                yield self
            finally:
                lock.release()

    def check_own(self, stages: Iterable[str]) -> None:
        """Check that no folder with a stage's name is the user's, e.g. `--out .` beside a folder `data` of images.

        Raises:
            WorkspaceError: the folder is new to edgekd, and has a folder with a stage's name that is not an artifact.
        """
        if (self.root / ".lock").exists():
            return
        for place in map(self.artifact_dir, stages):
            if place.exists() and not (place / MANIFEST).exists():
                raise WorkspaceError(
                    f"{place}: not made by edgekd, which would write its own there; give another --out"
                )

    def artifact_dir(self, stage: str) -> Path:
        """Return the path of a stage's finished artifact."""
        return self.root / stage

    def work_dir(self, stage: str, key: str) -> Path:
        """Create and return a stage's working folder for a cache key; it keeps only resume state."""
        path = self.work_path(stage, key)
        path.mkdir(parents=True, exist_ok=True)
        for left in path.iterdir():  # half-written files of a killed run must not get into the artifact
            if left.name == SCRATCH:
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        return path

    def finished(self, stage: str, key: str) -> Artifact | None:
        """Return a stage's artifact with this key, restored from `.previous` if necessary; None without one."""
        place, kept = self.artifact_dir(stage), self._previous(stage, key)
        if kept.exists() and self._complete(place, key) is None:
            self.set_aside(stage)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(kept, place)
        artifact = self._complete(place, key)
        if artifact is not None:
            drop_scratch(place)
        return artifact

    def look(self, stage: str, key: str) -> Artifact | None:
        """Return the artifact that `finished` would return, without restoring it; for processes without the lock."""
        return self._complete(self.artifact_dir(stage), key) or self._complete(self._previous(stage, key), key)

    def present(self, stage: str) -> Artifact | None:
        """Return the artifact in a stage's folder, with any key; None without one or for a damaged one."""
        try:
            return open_artifact(self.artifact_dir(stage))
        except ArtifactError:
            return None

    def code_of(self, stage: str) -> dict[str, str]:
        """Return the hashes of the third-party modules that the artifact in the stage's folder was made with."""
        there = self.present(stage)
        return (there.manifest.get("code") or {}) if there else {}

    def work_path(self, stage: str, key: str) -> Path:
        """Return the path of a stage's working folder for a cache key."""
        return self.root / ".work" / f"{stage.replace('/', '+')}-{key[:16]}"

    def has(self, stage: str, key: str) -> bool:
        """Return whether a stage has an artifact with this key, in its folder or in `.previous`."""
        return self._complete(self.artifact_dir(stage), key) is not None or self._previous(stage, key).exists()

    def note_failure(self, stage: str) -> None:
        """Mark a stage as failed for the processes that wait for its artifact: this run goes on without it."""
        self._failures.mkdir(parents=True, exist_ok=True)
        (self._failures / stage.replace("/", "+")).touch()

    def awaited(self, stage: str, key: str, poll_s: float = 0.5) -> Artifact | None:
        """Wait until the process that holds this folder has made a stage's artifact with this key, and return it.

        Returns None if the stage failed and the first process goes on without it.

        Raises:
            WorkspaceError: no process holds the folder, and the artifact does not exist.
        """
        lock = FileLock(self.root / ".lock")
        while (artifact := self._complete(self.artifact_dir(stage), key)) is None:
            if (self._failures / stage.replace("/", "+")).exists():
                return None
            try:
                lock.acquire(timeout=0)
            except Timeout:
                time.sleep(poll_s)
                continue
            lock.release()
            if (artifact := self._complete(self.artifact_dir(stage), key)) is None:
                raise WorkspaceError(
                    f"{self.root}: the process that this one trained with ended without {stage}; see its error"
                )
            break
        return artifact

    def set_aside(self, stage: str) -> None:
        """Move the artifact of a stage to `.previous`, if there is one."""
        place = self.artifact_dir(stage)
        if not place.exists():
            return
        try:
            key = open_artifact(place).manifest["key"]
        except ArtifactError:
            key = f"damaged-{os.getpid()}-{place.stat().st_mtime_ns}"
        kept = self._previous(stage, key)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if kept.exists():  # the newer one comes back when these settings are asked for again
            os.replace(kept, kept.with_name(f"{kept.name}-{kept.stat().st_mtime_ns}"))
        os.replace(place, kept)

    @property
    def _failures(self) -> Path:
        """The folder with an empty file for each stage that failed in the run that holds the workspace."""
        return self.root / ".work" / "failed"

    def _previous(self, stage: str, key: str) -> Path:
        return self.root / ".previous" / f"{stage.replace('/', '+')}-{key[:16]}"

    def _complete(self, place: Path, key: str) -> Artifact | None:
        if not place.exists():
            return None
        try:
            artifact = open_artifact(place)
        except ArtifactError as exc:  # the caller makes it again, `set_aside` keeps the remains
            if str(exc) not in self._reported:
                log.warning("%s; it is made again, what is left is kept in .previous", exc)
            self._reported.add(str(exc))
            return None
        return artifact if artifact.manifest["key"] == key else None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one line: a full, read-only or forbidden disk, at `path` or elsewhere."""
    try:
        yield
    except EdgekdError:
        raise
    except FileNotFoundError as exc:  # of the folder itself: below /proc, say, nothing can be made
        if exc.filename is None or Path(exc.filename) not in (path, *path.parents):
            raise
        raise WorkspaceError(f"{exc.filename}: the folder cannot be made there; give another path") from exc
    except IsADirectoryError as exc:
        raise WorkspaceError(
            f"{exc.filename or path}: is a folder, expected a file; move it away, or give another path"
        ) from exc
    except (FileExistsError, NotADirectoryError) as exc:
        raise WorkspaceError(f"{exc.filename or path}: is not a folder; move it away, or give another path") from exc
    except Exception as exc:
        if isinstance(exc, OSError) and (line := _disk_line(exc, path)):
            raise WorkspaceError(line) from exc
        if path.exists() and is_full(path):  # vendors wrap ENOSPC in their own errors
            raise WorkspaceError(f"{path}: {os.strerror(errno.ENOSPC)}; {_ADVICE}") from exc
        raise


def _disk_line(exc: OSError, path: Path) -> str:
    """Return a line with the problem and its remedy, "" for an error that is not the file system's."""
    if exc.errno not in (*_DISK_ERRORS, *_FILE_ERRORS) or (exc.filename is None and exc.errno in _FILE_ERRORS):
        return ""
    place = path if exc.filename is None else Path(os.fsdecode(exc.filename))
    if path.absolute() in (place.absolute(), *place.absolute().parents):
        advice = _ADVICE
    else:  # another file that was read or written: the weights, a cache, a folder of images
        advice = "make room there" if exc.errno in _DISK_ERRORS else "allow edgekd to use it, or give another path"
    return f"{place}: {os.strerror(exc.errno)}; {advice}"

"""Fetches a job's files from a board. The board is not trusted: names, sizes and hashes are checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgekd.errors import ArtifactError

_NAME = re.compile(r"(?!\.)[\w@+.,=-]+", re.ASCII)  # a part of a path, on any file system
_HASH = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 100_000


@dataclass(frozen=True)
class RemoteFile:
    """A file that a job wrote: its path in the job's folder, and the file of the host that it becomes."""

    name: str
    path: Path
    sha256: str
    size_bytes: int


def checked(
    files: Mapping[str, tuple[str, int]],
    places: Mapping[str, Path],
    out_dir: Path,
    most_bytes: int,
    most_of: Mapping[str, int] = MappingProxyType({}),
) -> list[RemoteFile]:
    """Check a job's file list and return where each file goes on the host.

    Args:
        files: path in the job's folder -> (SHA-256, bytes), as the board says.
        places: path in the job's folder -> file of the host.
        out_dir: folder of the host for the files in the job's folder `out`.
        most_bytes: largest number of bytes of all files together.
        most_of: path in the job's folder -> most bytes of that file, for those that are read whole.

    Raises:
        ArtifactError: a name, hash or size that no job has.
    """
    found = []
    for name, (sha256, size) in files.items():
        first, *rest = name.split("/")
        is_ours = name in places or (first == "out" and rest and all(_NAME.fullmatch(part) for part in rest))
        if not is_ours or not _HASH.fullmatch(sha256) or size < 0:
            raise ArtifactError(f"a file that no job writes: {name[:200]!r} of {size} bytes")
        if size > most_of.get(name, size):
            raise ArtifactError(f"{name} of {size} bytes; expected at most {most_of[name]}")
        found.append(RemoteFile(name, places.get(name, out_dir.joinpath(*rest)), sha256, size))
    total = sum(one.size_bytes for one in found)
    if total > most_bytes or len(found) > _MOST_FILES:
        raise ArtifactError(
            f"{len(found)} files of {total / 1e9:.2f} GB; expected at most {_MOST_FILES} of {most_bytes / 1e9:.2f} GB"
        )
    return found


class Receiver:
    """Receives the content of files one after another, in pieces, and remembers its offset when the link is lost.

    Args:
        files: in the order in which their content comes.
    """

    def __init__(self, files: list[RemoteFile]) -> None:
        self.offset = 0  # bytes received
        self._waiting = list(reversed(files))
        self._incoming: _Incoming | None = None
        self._next()

    def write(self, content: bytes) -> None:
        """Write the next piece; ArtifactError when there is more than the board said, or a hash differs."""
        self.offset += len(content)
        while content:
            if self._incoming is None:
                raise ArtifactError("it sends more bytes than it announced")
            content = self._incoming.take(content)
            self._next()

    def close(self) -> None:
        """Check that all content arrived; ArtifactError if it ended early."""
        if self._incoming is not None:
            self._incoming.close()
            raise ArtifactError(f"{self._incoming.name} comes without its last {self._incoming.left} bytes")

    def _next(self) -> None:
        """Finish the current file when it is complete, and begin the next one that has content."""
        while self._incoming is None or self._incoming.left == 0:
            if self._incoming is not None:
                self._incoming.finish()
            self._incoming = _Incoming(self._waiting.pop()) if self._waiting else None
            if self._incoming is None:
                return


class _Incoming:
    """A file whose content is coming; `left` bytes are missing."""

    def __init__(self, file: RemoteFile) -> None:
        self.name, self.left = file.name, file.size_bytes
        self._wanted = file
        self._part = file.path.with_name(f"{file.path.name}.part")
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._part, "wb")  # noqa: SIM115 - its pieces come in several calls
        self._digest = hashlib.sha256()

    def take(self, content: bytes) -> bytes:
        """Write the bytes of this file, and return the rest."""
        piece, rest = content[: self.left], content[self.left :]
        self._file.write(piece)
        self._digest.update(piece)
        self.left -= len(piece)
        return rest

    def finish(self) -> None:
        """Give the file its name; ArtifactError when its hash differs."""
        self.close()
        if self._digest.hexdigest() != self._wanted.sha256:
            raise ArtifactError(f"{self.name} does not match its hash")
        os.replace(self._part, self._wanted.path)

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

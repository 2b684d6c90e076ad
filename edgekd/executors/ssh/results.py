"""What a job wrote on a board, brought here. The board is not trusted: names, sizes and hashes are checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
    files: Mapping[str, tuple[str, int]], places: Mapping[str, Path], out_dir: Path, most_bytes: int
) -> list[RemoteFile]:
    """Return where the files of a job go here.

    Args:
        files: path in the job's folder -> (SHA-256, bytes), as the board says.
        places: path in the job's folder -> file of the host.
        out_dir: folder of the host for what lies below `out`.
        most_bytes: of all files together.

    Raises:
        ArtifactError: a name, hash or size that no job has.
    """
    found = []
    for name, (sha256, size) in files.items():
        first, *rest = name.split("/")
        is_ours = name in places or (first == "out" and rest and all(_NAME.fullmatch(part) for part in rest))
        if not is_ours or not _HASH.fullmatch(sha256) or size < 0:
            raise ArtifactError(f"a file that no job writes: {name[:200]!r} of {size} bytes")
        found.append(RemoteFile(name, places.get(name, out_dir.joinpath(*rest)), sha256, size))
    total = sum(one.size_bytes for one in found)
    if total > most_bytes or len(found) > _MOST_FILES:
        raise ArtifactError(
            f"{len(found)} files of {total / 1e9:.2f} GB; expected at most {_MOST_FILES} of {most_bytes / 1e9:.2f} GB"
        )
    return found


class Receiver:
    """Takes the content of files one after another, in pieces, and keeps its place when the link is lost.

    Args:
        files: in the order in which their content comes.
    """

    def __init__(self, files: list[RemoteFile]) -> None:
        self.offset = 0  # bytes that came
        self._waiting = list(reversed(files))
        self._file: IO[bytes] | None = None
        self._next()

    def write(self, content: bytes) -> None:
        """Write the next piece; ArtifactError when there is more than the board said, or a hash differs."""
        self.offset += len(content)
        while content:
            if self._file is None:
                raise ArtifactError("sends more than it said that the job wrote")
            piece, content = content[: self._left], content[self._left :]
            self._file.write(piece)
            self._digest.update(piece)
            self._left -= len(piece)
            self._next()

    def close(self) -> None:
        """Check that all came; ArtifactError when the content ended before."""
        if self._file is not None:
            self._file.close()
            raise ArtifactError(
                f"{self._current.name}: {self._left} of its {self._current.size_bytes} bytes are missing"
            )

    def _next(self) -> None:
        """Finish the current file when it is complete, and begin the next one that has content."""
        while self._file is None or self._left == 0:
            if self._file is not None:
                self._file.close()
                self._file = None
                if self._digest.hexdigest() != self._current.sha256:
                    raise ArtifactError(f"{self._current.name}: its content is not what its hash says")
                os.replace(self._part, self._current.path)
            if not self._waiting:
                return
            self._current = self._waiting.pop()
            self._part = self._current.path.with_name(f"{self._current.path.name}.part")
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._left, self._digest = open(self._part, "wb"), self._current.size_bytes, hashlib.sha256()

"""Files on a board by SHA-256: each is sent once, and a transfer resumes after a lost link."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from edgekd.board.job import Progress
from edgekd.errors import BoardDiskError, BoardError
from edgekd.executors.logs import printable
from edgekd.executors.ssh.client import NO_SPACE, Client, ScriptError
from edgekd.executors.ssh.lock import Waiting

_SCRIPT = Path(__file__).with_name("store.sh").read_text()
_BLOCK = 1 << 20  # the transfer of a large file resumes at a multiple of this
_SMALL = 4 << 20  # smaller files travel together, in batches of this size
_RESERVE = 1.1  # a file system needs more room than its files have bytes
_MOST = 500  # files in a batch
_ROUNDS = 3
_HASHED_PER_S = 5e6  # bytes, at the least: an old memory card, whose processor is busy


@dataclass(frozen=True)
class _Look:
    """State of the store.

    free: bytes of the disk.
    lacking: missing names -> bytes that have arrived.
    holder: who held the board during the whole wait; "" if nothing is missing.
    """

    free: int
    lacking: dict[str, int]
    holder: str


class Store:
    """The store in one folder of a board.

    Args:
        client: connection to the board.
        folder: edgekd's on the board.
        size_bytes: capacity of the store; the least recently used files are deleted first.
        slice_s: longest wait on the board in one call.
    """

    def __init__(self, client: Client, folder: str, size_bytes: int, slice_s: float) -> None:
        self._client, self._folder, self._size_bytes, self._slice_s = client, folder, size_bytes, slice_s

    def push(self, files: Mapping[str, Path], waiting: Waiting, progress: Progress) -> None:
        """Send the files that are missing or damaged in the store, while no job runs on the board.

        Args:
            files: SHA-256 -> file of the host.
            waiting: the wait for others who use the board.
            progress: called with the fraction of the bytes on the board.

        Raises:
            BoardError: as `Client.insist` and `Waiting`, or a file does not arrive as it was hashed.
            BoardDiskError: the board's disk has no room.
        """
        rounds, slice_s = 0, 1.0
        while rounds < _ROUNDS:
            found, missing = self._client.insist(partial(self._round, files, slice_s, progress))
            if not missing:
                return
            if found.holder:
                waiting.go_on(found.holder)
                slice_s = self._slice_s
            else:
                rounds += 1
        raise BoardError(
            f"board {self._client.name}: sent {_ROUNDS} times and never arrived whole: {', '.join(missing)}; does "
            "something change these files?"
        )

    def _round(self, files: Mapping[str, Path], slice_s: float, progress: Progress) -> tuple[_Look, list[str]]:
        """Send missing files unless somebody holds the board; return the state found, and the files still missing."""
        sizes = {name: path.stat().st_size for name, path in files.items()}
        free, needed, whole = 0, sum(sizes.values()), set[str]()
        try:
            found = self._look(files, slice_s, sum(sizes.values()))
            free, missing = found.free, sum(sizes[name] - had for name, had in found.lacking.items())
            needed = int(_RESERVE * missing)
            if needed > free:
                raise no_room(self._client.name, self._folder, free, needed)
            for batch in () if found.holder else _batches({name: sizes[name] for name in found.lacking}):
                whole |= self._send(batch, files, found.lacking)
                progress("sending", sum(sizes[name] - found.lacking[name] for name in whole) / max(1, missing))
        except ScriptError as exc:
            if NO_SPACE in exc.stderr:
                raise no_room(self._client.name, self._folder, free, needed) from exc
            raise
        return found, [str(files[name]) for name in found.lacking if name not in whole]

    def _look(self, names: Collection[str], slice_s: float, size_bytes: int) -> _Look:
        """Ask for the state of the store, which may have to hash files of these names and sizes."""
        wanted = "".join(f"{name}\n" for name in names).encode()
        work_s = slice_s + size_bytes / _HASHED_PER_S
        output = self._call("look", self._size_bytes, f"{slice_s:g}", stdin=wanted, work_s=work_s)
        words = [line.split() for line in output.splitlines()]
        try:
            (free,) = (int(word[1]) for word in words if word[0] == "free")
            lacking = {word[1]: int(word[2]) for word in words if word[0] == "lacks" and word[1] in names}
        except (ValueError, IndexError) as exc:
            raise BoardError(
                f"board {self._client.name}: expected a list of missing files, got {output[:200]!r}"
            ) from exc
        holder = " ".join(" ".join(word[1:]) for word in words if word[:1] == ["holder"])
        return _Look(free, lacking, printable(holder))

    def _send(self, batch: list[str], files: Mapping[str, Path], had: Mapping[str, int]) -> set[str]:
        """Send small files or one large file, and return the names of those that arrived whole."""
        name = batch[0]
        size = files[name].stat().st_size
        if size < _SMALL:
            archive = _archive(files, batch)
            output = self._call("receive_small", stdin=archive, work_s=len(archive) / _HASHED_PER_S)
        else:
            blocks = min(had[name], size) // _BLOCK
            with open(files[name], "rb", buffering=0) as file:
                file.seek(blocks * _BLOCK)
                work_s = size / _HASHED_PER_S
                output = self._call("receive_large", name, size, blocks, stdin=file, work_s=work_s)
        return {line.partition(" ")[2] for line in output.splitlines()} & set(batch)

    def _call(self, command: str, *arguments: object, stdin: IO[bytes] | bytes, work_s: float) -> str:
        return self._client.call(_SCRIPT + f'{command} "$@"', self._folder, *arguments, stdin=stdin, work_s=work_s)


def no_room(board: str, folder: str, free: int, needed: int | None, why: str = "") -> BoardDiskError:
    """Return the error of a board's full disk; sizes in bytes, `needed` is None where nobody knows."""
    more = f"{needed / 1e6:.1f} MB needed" if needed is not None else "the job needs more"
    return BoardDiskError(
        f"board {board}: no room in {folder}: {free / 1e6:.1f} MB free, {more}; make room there, or choose another "
        f"`folder` in the inventory{f' ({why})' if why else ''}"
    )


def _batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield names that are sent in one go: small files together, a large one alone."""
    batch: list[str] = []
    for name in sorted(sizes, key=lambda name: sizes[name]):
        if batch and (sizes[name] >= _SMALL or len(batch) == _MOST or sum(sizes[one] for one in batch) >= 4 * _SMALL):
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch


def _archive(files: Mapping[str, Path], names: Iterable[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            data = files[name].read_bytes()
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()

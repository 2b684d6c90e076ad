"""The archive of a bundle: a tar file (USTAR) whose every byte follows from the names and contents of its files.

An entry is a regular file. Its header holds the name, the size, and mode 755 for `run`, 644 for all others; times and owners are
0. Entries are sorted by name, so `SHA256SUMS` and its signature come first. Two blocks of zeros end the file.

A reader computes the header of an entry's name and size, and compares. So links, devices, sparse files, long
names and comments of other tar formats are one fault: a header that edgekd does not write. Every byte of a bundle is covered by
the signed sums: contents by their hashes, the rest by this comparison. Nothing is compressed, so an archive cannot be larger
after unpacking.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator, Optional, Tuple

from edgekd.board.files import replacing
from edgekd.errors import BundleError
from edgekd.release.sums import MOST_SUMS_BYTES, SIGNATURE, SUMS, check_name, check_names, hashes_in, parse_sums

RUN = "run"  # the one file that may be executed
MOST_SIGNATURE_BYTES = 1 << 16
MOST_BYTES = 8**11 - 1  # of one file; USTAR's limit, 8 GiB
_BLOCK = 512
_PIECE = 1 << 20
_SIZE = re.compile(rb"[0-7]{11}\0")
# Called with the content of SHA256SUMS and of its signature (None without one); raises if they are not trusted.
Check = Callable[[bytes, Optional[bytes]], None]


def pack(folder: Path, archive: Path) -> str:
    """Write a folder with its `SHA256SUMS` as an archive, and return the id of the release.

    Equal files give equal bytes; times, owners and order on the disk do not matter.

    Raises:
        BundleError: a name that a bundle cannot have, or a file of 8 GiB or more.
    """
    sums = (folder / SUMS).read_bytes()
    check_names(hashes_in(folder))
    first = [name for name in (SUMS, SIGNATURE) if (folder / name).exists()]
    with replacing(archive) as temporary, open(str(temporary), "wb") as out:
        for name in (*first, *parse_sums(sums, str(folder))):
            size = (folder / name).stat().st_size
            if size > MOST_BYTES:
                raise BundleError(f"{name}: expected a file of less than 8 GiB, got {size} bytes")
            out.write(header(name, size))
            with open(str(folder / name), "rb") as file:
                while piece := file.read(_PIECE):
                    out.write(piece)
            out.write(bytes(-size % _BLOCK))
        out.write(bytes(2 * _BLOCK))
    return release_id(sums)


def unpack(archive: Path, folder: Path, check: Check = lambda sums, signature: None) -> str:
    """Write the files of an archive into an empty folder and return the id of the release.

    `check` sees the sums and the signature before any other file is written. Every file is hashed while it is written. A
    failure leaves some files in the folder and nothing outside of it.

    Args:
        archive: the bundle.
        folder: created if missing; must be empty and writable only by this user.
        check: see `Check`.

    Raises:
        BundleError: not an archive that `pack` writes: truncated, damaged, or another kind of entry; a hash that differs; a
            file that is not listed, or that is missing; errors of `check`.
        OSError: the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BundleError(f"{folder}: expected an empty folder to unpack into; empty it or give another")
    with _opened(archive) as file:
        reader = _Reader(file, str(archive))
        sums, signature, entry = reader.head()
        check(sums, signature)
        _write(folder, SUMS, [sums])
        if signature is not None:
            _write(folder, SIGNATURE, [signature])
        for name, wanted in parse_sums(sums, str(archive)).items():
            if entry is None or entry[0] != name:
                got = entry[0] if entry else "the end"
                raise BundleError(f"{archive}: expected {name}, which {SUMS} lists, got {got}; copy the bundle again")
            if _write(folder, name, reader.content(entry[1])) != wanted:
                raise BundleError(
                    f"{archive}: {name} is damaged: its hash is not that in {SUMS}; copy the bundle again"
                )
            entry = reader.entry()
        if entry is not None:
            raise BundleError(f"{archive}: {entry[0]} is not in {SUMS}; do not trust this bundle")
    return release_id(sums)


def release_id(sums: bytes) -> str:
    """Return the id of a release: 16 hex digits of the SHA-256 of its `SHA256SUMS`."""
    return hashlib.sha256(sums).hexdigest()[:16]


def header(name: str, size: int) -> bytes:
    """Return the 512 bytes before an entry: POSIX.1-1988 USTAR, numbers octal and ended by NUL."""
    prefix, short = "", name
    if len(name) > 100:
        prefix = name[:156].rpartition("/")[0]
        short = name[len(prefix) + 1 :]
    mode = b"0000755\0" if name == RUN else b"0000644\0"
    before = b"".join(
        [short.encode("ascii").ljust(100, b"\0"), mode, b"0000000\0" * 2, b"%011o\0" % size, b"00000000000\0"]
    )
    after = b"".join([b"0", bytes(100), b"ustar\x0000", bytes(80), prefix.encode("ascii").ljust(167, b"\0")])
    return before + b"%06o\0 " % (sum(before) + sum(after) + 8 * ord(" ")) + after


class _Reader:
    """Reads an archive from its begin to its end, entry by entry."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        self._read, self._left = 0, os.fstat(file.fileno()).st_size

    def head(self) -> Tuple[bytes, Optional[bytes], Optional[Tuple[str, int]]]:
        """Return the sums, the signature (None without one), and name and size of the next entry."""
        sums = self._small(self.entry(), SUMS, MOST_SUMS_BYTES)
        entry = self.entry()
        if entry is None or entry[0] != SIGNATURE:
            return sums, None, entry
        signature = self._small(entry, SIGNATURE, MOST_SIGNATURE_BYTES)
        return sums, signature, self.entry()

    def entry(self) -> Optional[Tuple[str, int]]:
        """Return name and size of the next entry; None at the end of the archive."""
        block = self._take(_BLOCK)
        if block == bytes(_BLOCK):
            if self._left != _BLOCK or self._take(_BLOCK) != bytes(_BLOCK):
                raise BundleError(f"{self._where}: truncated, or data follows its end; copy the bundle again")
            return None
        short, prefix = (part.partition(b"\0")[0].decode("latin-1") for part in (block[:100], block[345:500]))
        name = f"{prefix}/{short}" if prefix else short
        try:
            check_name(name)
        except BundleError as exc:
            raise BundleError(f"{self._where}: not a bundle of edgekd: {exc}") from exc
        size = int(block[124:135], 8) if _SIZE.fullmatch(block[124:136]) else -1
        if size < 0 or block != header(name, size):
            raise BundleError(
                f"{self._where}: not a bundle of edgekd: the entry {name!r} is a link, a device, or has a header that edgekd does "
                "not write; make the bundle with `edgekd bundle`"
            )
        return name, size

    def content(self, size: int) -> Iterator[bytes]:
        """Yield the content of the entry whose header was read last, and check what fills its last block."""
        if size + -size % _BLOCK > self._left:
            raise self._truncated()
        while size:
            piece = self._take(min(size, _PIECE))
            size -= len(piece)
            yield piece
            if not size and any(self._take(-self._read % _BLOCK)):
                raise BundleError(f"{self._where}: data follows the end of a file; do not trust this bundle")

    def _small(self, entry: Optional[Tuple[str, int]], name: str, most: int) -> bytes:
        if entry is None or entry[0] != name:
            raise BundleError(
                f"{self._where}: not a bundle of edgekd: expected {name} first, got {entry and entry[0]!r}"
            )
        if entry[1] > most:
            raise BundleError(f"{self._where}: {name}: expected at most {most} bytes, got {entry[1]}")
        return b"".join(self.content(entry[1]))

    def _take(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) != count:
            raise self._truncated()
        self._read, self._left = self._read + count, self._left - count
        return found

    def _truncated(self) -> BundleError:
        return BundleError(f"{self._where}: truncated, or not a tar file; copy the bundle again")


def _opened(archive: Path) -> BinaryIO:
    try:
        return open(str(archive), "rb")
    except OSError as exc:
        raise BundleError(
            f"{archive}: cannot be read ({exc.strerror}); give a bundle that `edgekd bundle` wrote"
        ) from exc


def _write(folder: Path, name: str, pieces: Iterable[bytes]) -> str:
    """Write a new file and return the SHA-256 (hex) of its content."""
    path, digest = folder / name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if name == RUN else 0o644)
    with os.fdopen(descriptor, "wb") as out:
        for piece in pieces:
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()

"""The identity of a data set's split: equal for a copy elsewhere, different when a file changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekd.core.artifact import write_atomic
from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.base import DenseDataset
from edgekd.errors import DataError

# Of these, which end in a checksum or whose bytes shift, the ends tell; reading no more keeps large sets quick.
_TOLD_BY_THEIR_ENDS = frozenset({".png", ".jpg", ".jpeg"})
END_BYTES = 64 << 10
NEW_NS = 2_000_000_000  # file systems tell times of change apart by milliseconds, some by seconds


def fingerprint(dataset: DenseDataset, split: str) -> str:
    """Return a sha256 (hex) over the split, the classes, and name, suffix, size and content of every file.

    Folders and dates do not count, so a copied data set is the same. Of PNG and JPEG 64 KiB at either end are read: PNG
    ends in a checksum of its pixels; of a JPEG a change between them, at equal size, is not seen. Generated data has no
    files: only names and classes count, and its options belong in the cache key beside this.

    Every command asks for it, and of COCO's 123 thousand images it reads 15 GB. So it is remembered, in a file per split in
    the user's cache folder, until the path, size or time of change of a file is another.

    Raises:
        DataError: a file cannot be read.
    """
    known, may_keep = _memory(dataset, split)
    try:
        return known.read_text(encoding="ascii")
    except (OSError, ValueError):
        found = _digest(dataset, split, _identity)
    if may_keep:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            known.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(known, found)
    return found


def _digest(dataset: DenseDataset, split: str, identity: Callable[[Path], list[str | int]]) -> str:
    """Return a sha256 (hex) over the split, the classes, and the name and the files' identity of every sample."""
    digest = hashlib.sha256(_line([split, *dataset.classes]))
    for index in range(len(dataset)):
        digest.update(_line([dataset.name(index), *map(identity, dataset.files(index))]))
    if isinstance(dataset, AnnotatedDataset):  # all of them may stand in one large file
        digest.update(dataset.digest.encode())
    return digest.hexdigest()


def _memory(dataset: DenseDataset, split: str) -> tuple[Path, bool]:
    """Return the file in which the fingerprint of a split is remembered, and whether it may be.

    Not while a file is new: it could change once more without another time of change. Nor for users without a home.
    """
    newest = 0

    def state(path: Path) -> list[str | int]:
        nonlocal newest
        with _readable(path):
            found = path.stat()
        newest = max(newest, found.st_mtime_ns)
        return [str(path.absolute()), found.st_size, found.st_mtime_ns]

    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    known = Path(cache).absolute() / "edgekd/fingerprints" / _digest(dataset, split, state)
    return known, not cache.startswith("~") and newest < time.time_ns() - NEW_NS


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}); replace the file or remove it") from exc


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _identity(path: Path) -> list[str | int]:
    with _readable(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        crc = zlib.crc32(file.read(END_BYTES))
        if path.suffix.lower() in _TOLD_BY_THEIR_ENDS:
            file.seek(max(END_BYTES, size - END_BYTES))
        while chunk := file.read(END_BYTES):
            crc = zlib.crc32(chunk, crc)
    return [path.suffix, size, crc]

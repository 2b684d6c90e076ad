"""The fingerprint of a data set's split: the same for a copy in another folder, different when a file changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekd.board.files import cache_folder, write_atomic
from edgekd.data.base import DenseDataset
from edgekd.errors import DataError

# A change shows at the ends of these files: PNG ends in a checksum, JPEG bytes shift. Reading only the ends keeps large sets quick.
_READ_AT_THE_ENDS = frozenset({".png", ".jpg", ".jpeg"})
END_BYTES = 64 << 10
NEW_NS = 2_000_000_000  # file systems tell times of change apart by milliseconds, some by seconds


def fingerprint(dataset: DenseDataset, split: str) -> str:
    """Return a sha256 (hex) over the split, the number of classes, and name, suffix, size and content of every file.

    Folders, dates and class names are left out, so a copied data set has the same fingerprint. PNG and JPEG files
    are read for 64 KiB at either end. PNG ends in a checksum of its pixels; a change in the middle of a JPEG, at equal size,
    is not seen. Generated data has no files: its fingerprint is over the samples' names; the cache key has its options.

    Every command needs the fingerprint, and for COCO's 123 thousand images it reads 15 GB. A file per split in the user's
    cache folder therefore keeps it until the path, size or modification time of a file changes.

    Raises:
        DataError: a file cannot be read.
    """
    cached, is_stable = _cache_file(dataset, split)
    if cached is None:
        return _digest(dataset, split, _identity)
    try:
        return cached.read_text(encoding="ascii")
    except (OSError, ValueError):
        digest = _digest(dataset, split, _identity)
    if is_stable:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no cache
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cached, digest)
    return digest


def _digest(dataset: DenseDataset, split: str, identity: Callable[[Path], list[str | int]]) -> str:
    """Return a sha256 (hex) over the split, the number of classes, and the name and the files' identity of every sample."""
    digest = hashlib.sha256(_line([split, len(dataset.classes)]))
    for index in range(len(dataset)):
        digest.update(_line([dataset.name(index), *map(identity, dataset.files(index))]))
    # Objects may stand in one large file, and the meaning of masks in a list of colours.
    digest.update(getattr(dataset, "digest", "").encode())
    return digest.hexdigest()


def _cache_file(dataset: DenseDataset, split: str) -> tuple[Path | None, bool]:
    """Return the cache file of a split's fingerprint (None for users without a home), and whether to write it.

    It is not written while a file of the split is new: that file could change again within the same modification time.
    """
    newest_ns = 0

    def state(path: Path) -> list[str | int]:
        nonlocal newest_ns
        with _readable(path):
            found = path.stat()
        newest_ns = max(newest_ns, found.st_mtime_ns)
        return [str(path.absolute()), found.st_size, found.st_mtime_ns]

    cache = cache_folder()
    if cache is None:
        return None, False
    return cache / "fingerprints" / _digest(dataset, split, state), newest_ns < time.time_ns() - NEW_NS


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
        if path.suffix.lower() in _READ_AT_THE_ENDS:
            file.seek(max(END_BYTES, size - END_BYTES))
        while chunk := file.read(END_BYTES):
            crc = zlib.crc32(chunk, crc)
    return [path.suffix, size, crc]

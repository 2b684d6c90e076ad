"""The identity of a data set's split: equal for a copy elsewhere, different when a file changed."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

from edgekd.data.annotated import AnnotatedDataset
from edgekd.data.base import DenseDataset
from edgekd.errors import DataError

# Compressed images differ early and late when they differ at all; reading only the ends keeps large sets quick.
END_BYTES = 64 << 10


def fingerprint(dataset: DenseDataset, split: str) -> str:
    """Return a sha256 (hex) over the split, the classes, and name, suffix, size and both ends of every file.

    Folders and dates do not count, so a copied data set is the same. A change confined to the middle of a file
    beyond 64 KiB from either end, at equal size, is not seen. Generated data has no files: only names and classes
    count, and its options belong in the cache key beside this.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256(_line([split, *dataset.classes]))
    for index in range(len(dataset)):
        digest.update(_line([dataset.name(index), *map(_file_identity, dataset.files(index))]))
    if isinstance(dataset, AnnotatedDataset):  # all of them may stand in one large file
        digest.update(dataset.digest().encode())
    return digest.hexdigest()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _file_identity(path: Path) -> list[str | int]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            crc = zlib.crc32(file.read(END_BYTES))
            if size > END_BYTES:
                file.seek(max(END_BYTES, size - END_BYTES))
                crc = zlib.crc32(file.read(END_BYTES), crc)
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}); replace the file or remove it") from exc
    return [path.suffix, size, crc]

"""Files and disks: atomic writes, hashes, the user's cache folder, room on a disk.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Union

FULL_BYTES = 1 << 20  # Less free space than this means a full disk: vendors' errors for it differ.


def write_atomic(path: Path, content: Union[str, bytes, memoryview]) -> None:
    """Write a file atomically: a reader sees the old or the new content, also with several writers."""
    with replacing(path) as temporary, open(str(temporary), "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`, for this writer alone; it becomes `path` when the block ends."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(str(temporary), str(path))
    except OSError as exc:
        if exc.filename == str(temporary):
            exc.filename = str(path)  # the one that the caller knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the hash (hex) of a file's content."""
    with open(str(path), "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Optional[Path]:
    """Return edgekd's folder in the user's cache folder; None for a user without a home folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if folder.startswith("~") else Path(folder).absolute() / "edgekd"


def is_full(path: Path) -> bool:
    """Whether the disk of an existing file or folder has no room left."""
    return shutil.disk_usage(str(path)).free < FULL_BYTES

"""Text and numbers from files of `/proc` and `/sys`; None for what cannot be read.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import List, Optional


def read_text(path: Path) -> Optional[str]:
    """Return a file's text without the end of its last line; None when it cannot be read: absent, EIO, EAGAIN, EACCES."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def read_number(path: Path) -> Optional[int]:
    """Return a whole number that is never negative, e.g. a clock; None when it cannot be read or is no such number."""
    text = read_text(path)
    return int(text) if text is not None and text.isdigit() else None


def glob_paths(base: Path, pattern: str) -> List[Path]:
    """Return the files and folders of a glob pattern below `base`, in the order of the numbers in their names."""
    paths = glob.glob(str(base / pattern))
    return [Path(p) for p in sorted(paths, key=lambda p: ([int(n) for n in re.findall(r"\d+", Path(p).name)], p))]

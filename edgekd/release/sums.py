"""`SHA256SUMS` of a bundle: names and hashes of its files, and the names that a file may have.

Names must work on every board's file system: parts of letters, digits and `_ . @ + -`, none that begins
with `.` or `-`, none that differs from another only in case.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Iterable, List, Mapping

from edgekd.board.files import sha256_of
from edgekd.errors import BundleError

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
NEEDED = ("manifest.json", "spec.json")
MOST_FILES = 4096
MOST_SUMS_BYTES = 1 << 20
_MOST_NAME = 155  # characters: USTAR has no more room for the folders of a name
_MOST_PART = 100
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def render_sums(hashes: Mapping[str, str]) -> bytes:
    """Return the content of `SHA256SUMS`: one `<hex>  <name>` a line, sorted by name, as `sha256sum -c` reads it.

    Raises:
        BundleError: a name that a bundle cannot have.
    """
    check_names(hashes)
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode("ascii")


def parse_sums(content: bytes, where: str) -> Dict[str, str]:
    """Return name -> SHA-256 (hex), sorted by name, of the content of `SHA256SUMS`.

    Args:
        content: content of the file.
        where: begins the text of errors.

    Raises:
        BundleError: not exactly what `render_sums` writes, or without one of the files that every bundle has.
    """
    found: Dict[str, str] = {}
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as exc:
        raise BundleError(
            f"{where}: {SUMS}: expected ASCII text; this is no bundle of edgekd, or a damaged one"
        ) from exc
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise BundleError(f"{where}: {SUMS}, line {number}: expected `<sha256>  <name>`, got {line!r:.100}")
        found[match.group(2)] = match.group(1)
    try:
        is_canonical = render_sums(found) == content
    except BundleError as exc:
        raise BundleError(f"{where}: {SUMS}: {exc}") from exc
    if not is_canonical:
        raise BundleError(
            f"{where}: {SUMS}: expected sorted names without duplicates, and a line break at the end; build it again"
        )
    if lacking := [name for name in NEEDED if name not in found]:
        raise BundleError(f"{where}: {SUMS}: expected {', '.join(NEEDED)}, got no {', '.join(lacking)}")
    return found


def check_names(names: Iterable[str]) -> None:
    """Check the names of a bundle's files.

    Raises:
        BundleError: too many; a name of other characters, or too long; `SHA256SUMS` itself; two names, or a folder and a
            file, that are one on a disk that ignores case.
    """
    names = sorted(names)
    if len(names) > MOST_FILES:
        raise BundleError(f"expected at most {MOST_FILES} files, got {len(names)}")
    spelled: Dict[str, str] = {}
    for name in names:
        check_name(name)
        if name in (SUMS, SIGNATURE):
            raise BundleError(f"{SUMS} cannot list {name}")
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            other = spelled.setdefault(path.rstrip("/").lower(), path)
            if other != path:
                raise BundleError(f"the names {other!r} and {path!r} cannot both be in a bundle")


def check_name(name: str) -> None:
    """Check one name; BundleError for one that a bundle cannot have."""
    parts = name.split("/")
    if len(name) > _MOST_NAME or not all(_PART.fullmatch(part) and len(part) <= _MOST_PART for part in parts):
        raise BundleError(
            f"expected a name of letters, digits and _ . @ + -, at most {_MOST_NAME} characters, got {name!r:.300}"
        )


def hashes_in(folder: Path) -> Dict[str, str]:
    """Return name -> SHA-256 (hex) of every file in a folder but `SHA256SUMS` and its signature.

    Raises:
        BundleError: something that is neither a folder nor a regular file.
    """
    found = {name: sha256_of(folder / name) for name in _files(folder) if name not in (SUMS, SIGNATURE)}
    return {name: found[name] for name in sorted(found)}


def check_folder(folder: Path) -> Dict[str, str]:
    """Compare an unpacked bundle with its `SHA256SUMS` and return name -> hash.

    Raises:
        BundleError: a file is missing, damaged, not listed, or no regular file.
    """
    sums = folder / SUMS
    try:
        with open(str(sums), "rb") as file:
            content = file.read(MOST_SUMS_BYTES + 1)
    except OSError as exc:
        raise BundleError(f"{folder}: cannot read {SUMS} ({exc}); this is no unpacked bundle") from exc
    listed = parse_sums(content, str(folder))
    present = {name for name in _files(folder) if name not in (SUMS, SIGNATURE)}
    for name, wanted in listed.items():
        if name not in present:
            raise BundleError(f"{folder}: {name} is missing; unpack the bundle again")
        if sha256_of(folder / name) != wanted:
            raise BundleError(f"{folder}: {name} is damaged: its hash is not that in {SUMS}; unpack the bundle again")
    if foreign := sorted(present - set(listed)):
        raise BundleError(f"{folder}: {foreign[0]} is not in {SUMS}; unpack the bundle again")
    return listed


def _files(folder: Path) -> List[str]:
    found: List[str] = []
    for place, folders, files in os.walk(str(folder)):
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BundleError(f"{path}: expected regular files, got a link or a device")
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
    return found

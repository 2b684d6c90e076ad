"""`edgekd bundle --verify`: all checks of a bundle that need no board, no network and no runtime."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.errors import BundleError, WorkspaceError
from edgekd.release.archive import RUN, unpack
from edgekd.release.signature import Signer, check_signer, check_unknown_signer, signing_key
from edgekd.release.sums import SUMS, parse_sums
from edgekd.runner.contract import read_spec
from edgekd.runner.golden import read_golden
from edgekd.runner.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Verified:
    """A bundle whose sums, manifest, contract and golden images are valid.

    path: the file; size_bytes: its size.
    release: id of the release, as boards name its folder.
    manifest: its manifest.
    parts: top-level folder or file -> bytes in it.
    signer: its signer; None for a bundle without a signature.
    trust: result of the signature check, in words.
    """

    path: Path
    size_bytes: int
    release: str
    manifest: Manifest
    parts: dict[str, int]
    signer: Signer | None
    trust: str


def verify(path: Path, allowed_signers: Path | None = None) -> Verified:
    """Check a bundle and return its facts.

    Args:
        path: the file.
        allowed_signers: who may sign (ssh-keygen(1)); None: a signature is checked, and not whose it is.

    Raises:
        BundleError: as `unpack`, `check_signer`, `read_manifest`, `read_spec`, `read_golden`, or a file is missing that the
            manifest names.
        WorkspaceError: no room to unpack it.
    """
    found: list[tuple[Signer | None, str]] = []
    with TemporaryDirectory(prefix="edgekd-verify-") as text:
        folder = Path(text) / "bundle"
        _check_room(path, Path(text))
        release = unpack(path, folder, lambda sums, signature: found.append(_trust(sums, signature, allowed_signers)))
        names = parse_sums((folder / SUMS).read_bytes(), str(path))
        manifest = read_manifest(folder)
        spec = read_spec(folder, manifest)
        if lacking := [name for name in (RUN, manifest.engine) if name not in names]:
            raise BundleError(f"{path}: {lacking[0]} is missing; do not trust this bundle")
        for number in range(manifest.golden):
            read_golden(folder, spec, number)
        parts: dict[str, int] = {}
        for name in names:
            top = name.partition("/")[0]
            parts[top] = parts.get(top, 0) + (folder / name).stat().st_size
    (signer, trust) = found[0]
    return Verified(path, path.stat().st_size, release, manifest, parts, signer, trust)


def _trust(sums: bytes, signature: bytes | None, allowed_signers: Path | None) -> tuple[Signer | None, str]:
    if allowed_signers is not None:
        signer = check_signer(sums, signature, allowed_signers)
        return signer, f"signed by {signer.principal} ({signer.key}), whom {allowed_signers} allows"
    if signature is None:
        return None, "not signed"
    if shutil.which("ssh-keygen") is None:
        key = signing_key(signature)
        return Signer("", key), f"signature by {key}, not checked: no ssh-keygen here"
    signer = check_unknown_signer(sums, signature)
    return signer, f"signed by {signer.key}; whose key it is was not asked: see --allowed-signers"


def _check_room(path: Path, folder: Path) -> None:
    needed, free = path.stat().st_size if path.is_file() else 0, shutil.disk_usage(folder).free
    if needed > free:
        raise WorkspaceError(
            f"{folder}: {needed} bytes needed to unpack {path}, {free} free; set TMPDIR to a larger disk"
        )

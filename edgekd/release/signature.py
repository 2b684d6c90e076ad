"""The signature of a bundle: OpenSSH's (SSHSIG) over `SHA256SUMS`, checked by the system's `ssh-keygen`.

An `allowed_signers` file (ssh-keygen(1)) lists who may sign. The user puts it on the board; a bundle cannot bring it.
Format: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Optional, Sequence, Tuple

from edgekd.errors import BundleError
from edgekd.release.sums import SIGNATURE

NAMESPACE = "edgekd-bundle"  # a signature made for git or a file is not valid for a bundle
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG\0\0\0\1"
_NEEDS = "signatures need `ssh-keygen` of OpenSSH 8.2 or newer (Debian: apt install openssh-client)"
# OpenSSH 8.0 and older have no -Y; 8.1 has no find-principals.
_SIGNS_OF_AGE = ("unknown option", "illegal option", "nsupported operation", "usage:")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Signer:
    """Signer of a bundle.

    principal: the name that the allowed_signers file gives the key; "" where none was asked.
    key: fingerprint of the key, `SHA256:...` as `ssh-keygen -l` prints it.
    """

    principal: str
    key: str


def check_signer(sums: bytes, signature: Optional[bytes], allowed_signers: Path) -> Signer:
    """Return the signer of a `SHA256SUMS` whose key is in an allowed_signers file.

    Raises:
        BundleError: no signature, a damaged one, one for something else or by a key that is not allowed; the file cannot be read;
            no `ssh-keygen`, or one that is too old.
    """
    if signature is None:
        raise BundleError(
            f"the bundle is not signed, and {allowed_signers} asks for a signature; build it with --sign KEY"
        )
    key = signing_key(signature)
    try:
        with open(str(allowed_signers), "rb"):
            pass
    except OSError as exc:
        raise BundleError(
            f"{allowed_signers}: cannot be read ({exc.strerror}); edgekd cannot check signatures without it"
        ) from exc
    with TemporaryDirectory(prefix="edgekd-signature-") as text:
        file = Path(text) / SIGNATURE
        file.write_bytes(signature)
        who = ["-s", str(file), "-f", str(allowed_signers.absolute())]
        found = _ssh_keygen(["-Y", "find-principals", *who], b"")
        principals = found.stdout.splitlines() if found.code == 0 else []
        if not principals:
            raise BundleError(
                f"the bundle is signed by the key {key}, which {allowed_signers} does not allow ({found.reason}); do not trust it, "
                "or add the key there"
            )
        for principal in principals:
            found = _ssh_keygen(["-Y", "verify", "-n", NAMESPACE, "-I", principal, *who], sums)
            if found.code == 0:
                return Signer(principal, key)
    raise BundleError(
        f"the signature by {principals[0]} ({key}) is not valid for this bundle, or has expired; do not trust it ({found.reason})"
    )


def check_unknown_signer(sums: bytes, signature: bytes) -> Signer:
    """Return the key that signed a `SHA256SUMS`, trusted or not; BundleError for a signature of other content."""
    key = signing_key(signature)
    with TemporaryDirectory(prefix="edgekd-signature-") as text:
        file = Path(text) / SIGNATURE
        file.write_bytes(signature)
        found = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file)], sums)
    if found.code:
        raise BundleError(
            f"the signature by the key {key} does not match this bundle; do not trust it ({found.reason})"
        )
    return Signer("", key)


def signing_key(signature: bytes) -> str:
    """Return the fingerprint of the key that a signature names; nothing is verified.

    Raises:
        BundleError: not a signature of OpenSSH, or one for another namespace.
    """
    try:
        key, namespace = _key_and_namespace(signature)
    except (ValueError, binascii.Error) as exc:
        raise BundleError(f"{SIGNATURE}: not a signature of ssh-keygen ({exc}); sign the bundle again") from exc
    if namespace != NAMESPACE.encode():
        got = namespace.decode("utf-8", "replace")
        raise BundleError(
            f"{SIGNATURE}: expected a signature for {NAMESPACE!r}, got one for {got!r}; it is not for a bundle"
        )
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _key_and_namespace(signature: bytes) -> Tuple[bytes, bytes]:
    lines = signature.decode("ascii").split("\n")
    if lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        raise ValueError("its first or last line is another")
    text = "".join(lines[1:-2])
    blob = base64.b64decode(text, validate=True)
    if base64.b64encode(blob).decode() != text or not blob.startswith(_MAGIC):
        raise ValueError("its text is not base64 of SSHSIG, version 1")
    key, rest = _string(blob[len(_MAGIC) :])
    return key, _string(rest)[0]


def _string(data: bytes) -> Tuple[bytes, bytes]:
    """Return the first string of SSH's wire format, and what follows it."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise ValueError("it is truncated")
    return data[4 : 4 + length], data[4 + length :]


@dataclass(frozen=True)
class _Answer:
    """Exit code of ssh-keygen, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def reason(self) -> str:
        lines = [line.strip() for line in (self.stdout + self.stderr).splitlines() if line.strip()]
        return lines[-1] if lines else "ssh-keygen gives no reason"


def _ssh_keygen(arguments: Sequence[str], stdin: bytes) -> _Answer:
    """Run ssh-keygen; BundleError where it is absent or too old."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], input=stdin, capture_output=True, timeout=_TIMEOUT_S, env=environment
        )
    except FileNotFoundError as exc:
        raise BundleError(f"no ssh-keygen on this machine; {_NEEDS}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BundleError(f"ssh-keygen does not run ({exc}); {_NEEDS}") from exc
    answer = _Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
    if answer.code and any(sign in answer.stderr for sign in _SIGNS_OF_AGE):
        raise BundleError(f"the ssh-keygen of this machine is too old ({answer.reason}); {_NEEDS}")
    if answer.code and "No user exists" in answer.stderr:  # OpenSSH asks for the name of whoever runs it
        raise BundleError(f"ssh-keygen does not run here ({answer.reason}); give this user an entry in /etc/passwd")
    return answer

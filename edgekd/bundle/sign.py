"""Signs `SHA256SUMS` of a bundle with the user's own SSH key, agent or token."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from edgekd.errors import BundleError
from edgekd.release.signature import NAMESPACE, Signer, check_unknown_signer
from edgekd.release.sums import SIGNATURE, SUMS

log = logging.getLogger(__name__)


def sign(folder: Path, key: Path) -> Signer:
    """Write the signature beside `SHA256SUMS` and return the key that made it.

    `ssh-keygen` asks for a passphrase or a touch of a token on the terminal.

    Args:
        folder: folder of the bundle.
        key: private key, or a public key whose private one the agent has.

    Raises:
        BundleError: no such key, it cannot sign, or there is no `ssh-keygen`.
    """
    if not key.is_file():
        raise BundleError(f"{key}: no such file; give a private SSH key, or the .pub of a key that ssh-agent has")
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key.absolute()), str(folder / SUMS)]
    lines = ["ssh-keygen gives no reason"]
    try:
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            for line in process.stderr or ():
                lines += [line.strip()] if line.strip() else []
                if line.startswith("Confirm"):  # a token waits for a touch
                    log.info("%s", lines[-1])
    except OSError as exc:
        raise BundleError(f"no ssh-keygen on this machine ({exc.strerror}); install OpenSSH 8.2 or newer") from exc
    if process.returncode or not (folder / SIGNATURE).is_file():
        raise BundleError(f"{key}: cannot sign: {lines[-1]}")
    return check_unknown_signer((folder / SUMS).read_bytes(), (folder / SIGNATURE).read_bytes())

"""Signatures of bundles, made and checked by the real ssh-keygen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekd.bundle.sign import sign
from edgekd.errors import BundleError
from edgekd.release.signature import Signer, check_signer, check_unknown_signer, signing_key
from edgekd.release.sums import SIGNATURE, SUMS

SUMS_TEXT = b"0" * 64 + b"  manifest.json\n"
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")


def make_key(folder: Path, name: str, *options: str) -> Path:
    """Return the private key of a new pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name, *options], check=True)
    return folder / name


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text()


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """Return a folder with SHA256SUMS, its signature by `key`, and `allowed`, which allows the key."""
    key = make_key(tmp_path, "key")
    (tmp_path / SUMS).write_bytes(SUMS_TEXT)
    sign(tmp_path, key)
    (tmp_path / "allowed").write_text(f"# the team\nme@example.org {public(key)}")
    return tmp_path


def signature_of(folder: Path, key: Path, namespace: str, content: bytes = SUMS_TEXT) -> bytes:
    """Return a signature by ssh-keygen itself."""
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", key], input=content, capture_output=True, check=True
    )
    return done.stdout


def fingerprint(key: Path) -> str:
    """Return a key's fingerprint as ssh-keygen prints it."""
    return subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout.split()[1]


def test_the_signer_is_the_principal_of_the_allowed_key(signed: Path) -> None:
    found = check_signer(SUMS_TEXT, (signed / SIGNATURE).read_bytes(), signed / "allowed")
    assert found == Signer("me@example.org", fingerprint(signed / "key"))


def test_a_signer_that_nobody_vouches_for_is_a_key(signed: Path) -> None:
    found = check_unknown_signer(SUMS_TEXT, (signed / SIGNATURE).read_bytes())
    assert found == Signer("", fingerprint(signed / "key"))


def test_two_signatures_of_one_key_are_equal(signed: Path) -> None:
    assert signature_of(signed, signed / "key", "edgekd-bundle") == (signed / SIGNATURE).read_bytes()


@pytest.mark.parametrize("kind", [("-t", "rsa", "-b", "2048"), ("-t", "ecdsa")])
def test_other_kinds_of_keys_sign(tmp_path: Path, kind: tuple[str, ...]) -> None:
    key = make_key(tmp_path, "other", *kind)
    (tmp_path / SUMS).write_bytes(SUMS_TEXT)
    assert sign(tmp_path, key).key == fingerprint(key)


def test_a_key_of_the_agent_signs_by_its_public_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    key = make_key(tmp_path, "key")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True)
        expected = fingerprint(key)
        key.unlink()
        (tmp_path / SUMS).write_bytes(SUMS_TEXT)
        assert sign(tmp_path, key.with_suffix(".pub")).key == expected
    finally:
        agent.kill()
        agent.wait()


def refusal(signed: Path, signature: bytes | None, allowed: str = "allowed", sums: bytes = SUMS_TEXT) -> str:
    with pytest.raises(BundleError) as caught:
        check_signer(sums, signature, signed / allowed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_signature(signed: Path) -> None:
    assert "is not signed" in refusal(signed, None)


def test_other_sums(signed: Path) -> None:
    signature = (signed / SIGNATURE).read_bytes()
    assert "is not valid for this bundle" in refusal(signed, signature, sums=SUMS_TEXT + b"x")
    with pytest.raises(BundleError, match="does not match this bundle"):
        check_unknown_signer(SUMS_TEXT + b"x", signature)


def test_a_signer_who_is_not_allowed(signed: Path) -> None:
    signature = signature_of(signed, make_key(signed, "stranger"), "edgekd-bundle")
    assert "does not allow" in refusal(signed, signature)


def test_a_signature_for_another_use(signed: Path) -> None:
    signature = signature_of(signed, signed / "key", "git")
    assert "expected a signature for 'edgekd-bundle', got one for 'git'" in refusal(signed, signature)


def test_a_key_that_is_allowed_for_another_use_only(signed: Path) -> None:
    (signed / "git").write_text(f'me@example.org namespaces="git" {public(signed / "key")}')
    assert refusal(signed, (signed / SIGNATURE).read_bytes(), "git")


def test_a_key_that_is_no_longer_allowed(signed: Path) -> None:
    (signed / "old").write_text(f'me@example.org valid-before="20200101" {public(signed / "key")}')
    assert refusal(signed, (signed / SIGNATURE).read_bytes(), "old")


@pytest.mark.parametrize("text", ["", "# nobody\n", "damaged\n", "me@example.org ssh-ed25519 AAAA\n"])
def test_a_file_that_allows_nobody(signed: Path, text: str) -> None:
    (signed / "nobody").write_text(text)
    assert "does not allow" in refusal(signed, (signed / SIGNATURE).read_bytes(), "nobody")


def test_a_file_that_is_not_there(signed: Path) -> None:
    assert "cannot check signatures without it" in refusal(signed, (signed / SIGNATURE).read_bytes(), "absent")


def test_no_byte_of_a_signature_can_change(signed: Path) -> None:
    signature = (signed / SIGNATURE).read_bytes()
    for place in range(0, len(signature), 7):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert refusal(signed, bytes(changed))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 50, b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_what_is_no_signature(content: bytes) -> None:
    with pytest.raises(BundleError, match="not a signature of ssh-keygen"):
        signing_key(content)


def test_a_machine_without_ssh_keygen(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(signed / "nothing"))
    assert "no ssh-keygen on this machine; signatures need" in refusal(signed, (signed / SIGNATURE).read_bytes())
    with pytest.raises(BundleError, match="no ssh-keygen"):
        sign(signed, signed / "key")


# OpenSSH 8.1 has no find-principals, 7.9 no -Y.
@pytest.mark.parametrize("said", ["ssh-keygen: unknown option -- Y", 'Unsupported operation for -Y: "find-principals"'])
def test_a_ssh_keygen_that_is_too_old(signed: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    (signed / "bin").mkdir()
    (signed / "bin/ssh-keygen").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    (signed / "bin/ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", f"{signed / 'bin'}:/bin:/usr/bin")
    assert "too old" in refusal(signed, (signed / SIGNATURE).read_bytes())


def test_a_key_that_cannot_sign(signed: Path) -> None:
    with pytest.raises(BundleError, match="no such file; give a private SSH key"):
        sign(signed, signed / "absent")
    (signed / "text").write_text("no key")
    with pytest.raises(BundleError, match="cannot sign: "):
        sign(signed, signed / "text")


def test_a_user_without_a_name_is_not_taken_for_a_foreign_key(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are those of OpenSSH 9.2 for a user id that /etc/passwd lacks."""
    (signed / "bin").mkdir()
    (signed / "bin/ssh-keygen").write_text("#!/bin/sh\necho 'No user exists for uid 12345' >&2\nexit 255\n")
    (signed / "bin/ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(signed / "bin"), prepend=":")
    with pytest.raises(BundleError, match="No user exists for uid 12345.*/etc/passwd"):
        check_signer(SUMS_TEXT, (signed / SIGNATURE).read_bytes(), signed / "allowed")

"""The switch on this machine: bundles with a shell script for an engine; no systemd."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import DeployError
from edgekd.release.__main__ import main
from edgekd.release.install import STEPS, Wanted, install, roll_back
from edgekd.release.overview import overview, remove
from edgekd.release.releases import KEPT, Releases
from edgekd.release.sums import check_folder
from tests.boards.small_bundles import Small, allow, make_bundle, make_key

Deploy = Callable[..., list[str]]
FIRST = Small()
WITHOUT_RUNTIME = find_spec("onnxruntime") is None
pytestmark = pytest.mark.skipif(WITHOUT_RUNTIME, reason="the bundles' target needs onnxruntime, which is not installed")


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """The releases of a name on an empty board."""
    return Releases(tmp_path / "root", "lane")


@pytest.fixture
def deploy(releases: Releases, tmp_path: Path) -> Deploy:
    """Return a function that makes a bundle and installs it; it returns the names of the steps."""
    made: list[Path] = []

    def do(small: Small = FIRST, key: Path | None = None, **wanted: Any) -> list[str]:
        made.append(make_bundle(tmp_path / f"bundle{len(made)}", small, key))
        return [step.name for step in install(releases, Wanted(made[-1], **wanted))]

    return do


def served(releases: Releases) -> str:
    """Return what the current release says, whose files are all right."""
    check_folder(releases.folder / "current/")
    return subprocess.run(
        ["sh", releases.folder / "current/run", "--check"], capture_output=True, text=True
    ).stdout.strip()


def left_over(releases: Releases) -> list[Path]:
    return list(releases.folder.glob(".in-*"))


def test_a_bundle_becomes_the_current_release_step_by_step(releases: Releases, deploy: Deploy) -> None:
    assert deploy() == [step for step in STEPS if step != "health"]  # no unit here
    assert served(releases) == "one"
    assert left_over(releases) == []
    (row,) = overview(releases.root)
    assert (row.name, row.state, row.fault) == ("lane", "no unit", "")
    (release,) = row.releases
    assert (release.engine, release.version, release.is_current, release.is_previous) == (
        "onnxruntime-fp32",
        1,
        True,
        False,
    )


def test_rollback_goes_back_release_by_release(releases: Releases, deploy: Deploy) -> None:
    for number, word in enumerate(("one", "two", "three"), 1):
        deploy(Small(word, number))
    assert [step.name for step in roll_back(releases)] == ["switch", "restart"]
    assert served(releases) == "two"
    list(roll_back(releases))
    assert served(releases) == "one"
    with pytest.raises(DeployError, match="no earlier release is kept"):
        list(roll_back(releases))
    assert served(releases) == "one"


def test_three_releases_are_kept_and_the_one_before_is_among_them(releases: Releases, deploy: Deploy) -> None:
    for number in range(5):
        deploy(Small(str(number), number))
    assert len(releases.all()) == KEPT
    assert served(releases) == "4"
    list(roll_back(releases))
    deploy(Small("5", 5))
    list(roll_back(releases))
    assert served(releases) == "3"
    endings = {path.suffix for path in (releases.folder / "releases").iterdir() if path.is_file()}
    assert endings == {".env", ".previous"}
    assert len(list((releases.folder / "releases").glob("*.env"))) == KEPT


def test_a_damaged_manifest_of_the_current_release_can_be_passed_over(releases: Releases, deploy: Deploy) -> None:
    deploy(Small("one", 1))
    (releases.folder / "current/manifest.json").write_bytes(b"")
    with pytest.raises(DeployError, match="fit: the version of the current release is not known.*--older"):
        deploy(Small("two", 2))
    deploy(Small("two", 2), may_be_older=True)
    assert served(releases) == "two"


def test_the_same_bundle_again_is_the_same_release_and_keeps_the_way_back(releases: Releases, deploy: Deploy) -> None:
    deploy(Small("one"))
    deploy(Small("two"))
    before = releases.current()
    deploy(Small("two"))
    assert releases.current() == before
    list(roll_back(releases))
    assert served(releases) == "one"


def test_a_release_that_was_damaged_on_the_disk_is_not_used_again(releases: Releases, deploy: Deploy) -> None:
    deploy(Small("one"))
    deploy(Small("two"))
    (releases.folder / "current/engine/word").write_text("damaged")
    first = releases.current()
    deploy(Small("two"))
    assert releases.current() == f"{first}-2"
    assert served(releases) == "two"


REFUSED: dict[str, tuple[Small, dict[str, Any], str]] = {
    "golden": (Small("other", 2, check="exit 3"), {}, "golden: other"),
    "crash": (Small("other", 2, check="kill -s SEGV $$"), {}, "golden: the engine's process died by SIGSEGV: other"),
    "older": (Small("other", 0), {}, "fit: version 0 is older than the current 1; to deploy it anyway, give --older"),
    "chip": (Small("other", 2, manifest={"chip": "rk3588"}), {"chip": "x86-64"}, "fit: .* is for chip rk3588, this board is x86-64"),
    "target": (Small("other", 2, manifest={"target": "elsewhere"}), {}, "fit: .*no code for target 'elsewhere'"),
    "unsigned": (Small("other", 2), {"needs_signature": True}, "unpack: the inventory requires a signature"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_the_release_before(what: str, releases: Releases, deploy: Deploy) -> None:
    small, wanted, message = REFUSED[what]
    deploy(Small("one", 1))
    before = releases.all()
    with pytest.raises(DeployError, match=message):
        deploy(small, **wanted)
    assert served(releases) == "one"
    assert (releases.all(), left_over(releases)) == (before, [])


def test_a_release_whose_trial_was_cut_short_is_not_gone_back_to(releases: Releases, deploy: Deploy) -> None:
    """A kill between the switch and the end of the trial; then another release is installed."""
    deploy(Small("one", 1))
    first = releases.current()
    deploy(Small("two", 2))
    with releases.locked() as unfinished:
        releases.begin_trial(first, unfinished)  # as if `two` had never become healthy
    assert releases.proven() == first
    deploy(Small("three", 3))
    assert (releases.proven(), served(releases)) == (releases.current(), "three")
    list(roll_back(releases))
    assert served(releases) == "one"


def test_an_older_version_is_taken_when_told(releases: Releases, deploy: Deploy) -> None:
    deploy(Small("one", 2))
    deploy(Small("old", 1), may_be_older=True)
    assert served(releases) == "old"


def test_a_dry_run_checks_all_and_switches_nothing(releases: Releases, deploy: Deploy) -> None:
    assert deploy(Small(), is_dry=True) == ["room", "unpack", "fit", "golden"]
    assert (releases.current(), releases.all(), left_over(releases)) == (None, [], [])


def test_signatures_are_those_that_the_board_allows(releases: Releases, deploy: Deploy, tmp_path: Path) -> None:
    ours, foreign = make_key(tmp_path, "ours"), make_key(tmp_path, "foreign")
    deploy(Small("one", 1))
    (releases.root / "allowed_signers").write_text(allow(ours))
    for key, message in ((None, "is not signed"), (foreign, "does not allow")):
        with pytest.raises(DeployError, match=f"unpack: .*{message}"):
            deploy(Small("two", 2), key)
        assert served(releases) == "one"
    deploy(Small("two", 2), ours, needs_signature=True)
    assert served(releases) == "two"


def test_a_board_without_ssh_keygen_takes_a_signed_bundle_while_nobody_asks_for_it(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "one", Small("one", 1), make_key(tmp_path, "ours"))
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    text = {step.name: step.text for step in install(releases, Wanted(bundle))}["unpack"]
    assert "not checked: no ssh-keygen here, and no " in text
    (releases.root / "allowed_signers").write_text(allow(tmp_path / "ours"))
    with pytest.raises(DeployError, match="unpack: no ssh-keygen on this machine"):
        list(install(releases, Wanted(bundle)))


def test_every_byte_of_a_bundle_is_checked(releases: Releases, deploy: Deploy, tmp_path: Path) -> None:
    deploy(Small("one", 1))
    bundle = make_bundle(tmp_path / "wrong", Small("two", 2))
    content = bundle.read_bytes()
    for place in range(0, len(content), 509):
        changed = bytearray(content)
        changed[place] ^= 1
        bundle.write_bytes(changed)
        with pytest.raises(DeployError, match="unpack: "):
            list(install(releases, Wanted(bundle)))
    assert served(releases) == "one"
    assert left_over(releases) == []


def hostile(kind: str) -> tarfile.TarInfo:
    """Return an entry that tries to leave the folder, or to be something else than a file."""
    entry = tarfile.TarInfo(
        {"parent": "../outside", "absolute": "/tmp/edgekd-outside", "deep": "engine/../../outside"}.get(kind, "x")
    )
    types = {
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "folder": tarfile.DIRTYPE,
    }
    entry.type = types.get(kind, tarfile.REGTYPE)
    entry.linkname = "../../../outside" if "link" in kind else ""
    return entry


@pytest.mark.parametrize("kind", ["parent", "absolute", "deep", "symlink", "hardlink", "device", "folder"])
def test_a_hostile_bundle_writes_nothing_outside(kind: str, releases: Releases, deploy: Deploy, tmp_path: Path) -> None:
    """The entry stands behind the two that every bundle begins with, and a whole bundle follows."""
    deploy(Small("one", 1))
    good = make_bundle(tmp_path / "good", Small("two", 2))
    with tarfile.open(good) as source, tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.USTAR_FORMAT) as bad:
        for number, member in enumerate(source.getmembers()):
            if number == 1:
                bad.addfile(hostile(kind))
            bad.addfile(member, source.extractfile(member))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DeployError, match="unpack: "):
        list(install(releases, Wanted(tmp_path / "bad.tar")))
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/edgekd-outside").exists()
    assert served(releases) == "one"


def test_a_full_disk_is_said_before_anything_is_written(
    releases: Releases, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(Small("one", 1))
    monkeypatch.setattr("edgekd.release.install.room", lambda folder: 1_000_000)  # the real one: test_deploy_faults.py
    with pytest.raises(DeployError, match=r"room: no room in .*: 1.0 MB free, 4.* MB needed"):
        deploy(Small("two", 2))
    assert served(releases) == "one"


def test_who_holds_the_lock_keeps_others_out(releases: Releases, deploy: Deploy) -> None:
    deploy()
    with open(releases.folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeployError, match="another process changes its releases"):
            deploy(Small("two", 2))


def test_a_disk_without_locks_is_not_taken_for_a_second_installer(
    releases: Releases, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS without a lock daemon; no disk here is like that."""

    def refuse(file: object, flags: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DeployError, match=r"lane/lock: cannot be locked \(No locks available\)"):
        deploy()


def test_a_folder_that_cannot_be_written_is_one_line(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "one")
    releases.root.write_text("a file")  # root may write everywhere, but not below a file
    assert main([str(releases.folder), "install", str(bundle)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; look at the disk, and at who owns the folder")


def test_output_that_nobody_reads_stops_no_installation(releases: Releases, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "one")
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "edgekd.release", str(releases.folder), "install", str(bundle)]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr, served(releases)) == (0, "", "one")


def test_leftovers_of_a_killed_process_are_deleted_by_the_next_one(releases: Releases, deploy: Deploy) -> None:
    (releases.folder / ".in-4711/bundle/engine").mkdir(parents=True)
    deploy()
    assert left_over(releases) == []


@pytest.mark.parametrize("target", ["/etc", "releases/../..", "elsewhere", "releases/0123456789abcdef"])
def test_a_foreign_link_for_current_is_not_followed(target: str, releases: Releases, deploy: Deploy) -> None:
    releases.folder.mkdir(parents=True)
    os.symlink(target, releases.folder / "current")
    with pytest.raises(DeployError, match="expected a link to one of releases/"):
        deploy()
    assert os.readlink(releases.folder / "current") == target


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "-x", "x" * 64, "allowed_signers", "ä"])
def test_a_name_is_one_that_a_folder_and_a_unit_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="expected letters"):
        Releases(tmp_path, name)


def test_removing_leaves_other_names(releases: Releases, deploy: Deploy) -> None:
    deploy()
    other = Releases(releases.root, "other")
    with pytest.raises(DeployError, match="no releases; known names: lane"):
        remove(other)
    remove(releases)
    assert overview(releases.root) == []


def test_variables_are_never_readable_by_others(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until the file has its name; the worker's umask lets others read."""
    modes = []
    monkeypatch.setattr(os, "fsync", lambda number: modes.append(os.fstat(number).st_mode & 0o077))
    before = os.umask(0o022)
    try:
        with releases.locked() as unfinished:
            releases.put(releases.folder / "service.env", "TOKEN=secret", unfinished)
    finally:
        os.umask(before)
    assert modes[0] == 0
    assert (releases.folder / "service.env").read_text() == "TOKEN=secret"

"""The archive of a bundle: what `pack` writes, and that `unpack` takes nothing else and writes nothing elsewhere."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import BundleError
from edgekd.release.archive import header, pack, release_id, unpack
from edgekd.release.sums import SUMS, check_folder, check_names, hashes_in, parse_sums, render_sums

FILES = {
    "manifest.json": b"{}",
    "spec.json": b"{}",
    "engine/engine.xml": b"x" * 1000,
    "engine/engine.bin": bytes(range(256)) * 4,  # two whole blocks
    "run": b"#!/bin/sh\n",
    "runtime/edgekd/__init__.py": b"",
    "edgekd@.service": b"[Unit]\n",
    "golden/0/" + "a" * 90 + "/" + "b" * 40 + ".npy": b"long",
}


def write_folder(folder: Path, files: Mapping[str, bytes], sums: bytes | None = None) -> Path:
    """Write a folder that can be packed."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / SUMS).write_bytes(render_sums(hashes_in(folder)) if sums is None else sums)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle of FILES."""
    pack(write_folder(tmp_path / "made", FILES), tmp_path / "bundle.tar")
    return tmp_path / "bundle.tar"


def refusal(archive: Path) -> str:
    """Return why an archive is refused; nothing may be written outside of the folder."""
    outside = archive.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    (outside / "folder").mkdir(parents=True)
    with pytest.raises(BundleError) as caught:
        unpack(archive, outside / "folder")
    assert [path.name for path in outside.iterdir()] == ["folder"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unpacking_gives_back_what_was_packed(bundle: Path, tmp_path: Path) -> None:
    release = unpack(bundle, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    assert release == release_id((tmp_path / "out" / SUMS).read_bytes())
    assert os.access(tmp_path / "out/run", os.X_OK)
    assert not os.access(tmp_path / "out/engine/engine.xml", os.X_OK)
    assert set(check_folder(tmp_path / "out")) == set(FILES)


def test_the_same_files_give_the_same_bytes_whatever_their_times_modes_and_order(bundle: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "elsewhere/deep", dict(reversed(FILES.items())))
    for number, name in enumerate(FILES):
        os.utime(other / name, (number, number))
        (other / name).chmod(0o600 + number % 2)
    pack(other, tmp_path / "other.tar")
    assert (tmp_path / "other.tar").read_bytes() == bundle.read_bytes()


def test_python_and_gnu_tar_read_it(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle, "r:") as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == [SUMS, *sorted(FILES)]
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}
    (tmp_path / "gnu").mkdir()
    subprocess.run(["tar", "-xf", bundle, "-C", tmp_path / "gnu"], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=tmp_path / "gnu", check=True)


def test_no_byte_can_change(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    generator = random.Random(0)
    places = [*range(0, 512, 3), *generator.sample(range(len(content)), 150), len(content) - 1]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        (tmp_path / "changed.tar").write_bytes(changed)
        assert refusal(tmp_path / "changed.tar")


def test_a_truncated_or_longer_archive_is_refused(bundle: Path, tmp_path: Path) -> None:
    content, cut = bundle.read_bytes(), tmp_path / "cut.tar"
    for length in (0, 1, 511, 512, 1000, len(content) // 2, len(content) - 1024, len(content) - 512, len(content) - 1):
        cut.write_bytes(content[:length])
        assert "truncated" in refusal(cut)
    cut.write_bytes(content + bytes(512))
    assert "data follows its end" in refusal(cut)


def foreign(path: Path, *members: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> Path:
    """Write an archive with a SHA256SUMS that lists FILES, those members, and FILES."""
    made = write_folder(path.parent / "listed", FILES)
    with tarfile.open(path, "w", format=form) as tar:
        listed = tarfile.TarInfo(SUMS)
        listed.size = (made / SUMS).stat().st_size
        with open(made / SUMS, "rb") as file:
            tar.addfile(listed, file)
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """Return an entry with those fields."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


HOSTILE = {
    "absolute": member("/etc/passwd", size=3),
    "parent": member("../outside.txt", size=3),
    "parent in the middle": member("engine/../../outside.txt", size=3),
    "dot": member("./engine.xml", size=3),
    "symbolic link": member("engine", tarfile.SYMTYPE, linkname="/etc"),
    "hard link": member("engine/engine.bin", tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": member("engine/engine.bin", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "fifo": member("engine/engine.bin", tarfile.FIFOTYPE),
    "folder": member("engine", tarfile.DIRTYPE),
    "sparse file": member("engine/engine.bin", tarfile.GNUTYPE_SPARSE),
    "contiguous file": member("engine/engine.bin", tarfile.CONTTYPE),
    "set-uid": member("edgekd@.service", mode=0o4755),
    "executable": member("edgekd@.service", mode=0o755),
    "owner": member("edgekd@.service", uname="root"),
    "time": member("edgekd@.service", mtime=1),
    "line break": member("engine/a\nb"),
    "space": member("engine/a b"),
    "hidden": member("engine/.profile"),
    "option": member("-rf"),
    "unlisted": member("engine/other.bin"),
    "twice": member(SUMS),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_entry_that_edgekd_does_not_write_is_refused(tmp_path: Path, kind: str) -> None:
    assert refusal(foreign(tmp_path / "hostile.tar", HOSTILE[kind]))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_kinds_of_tar_are_refused(tmp_path: Path, form: int) -> None:
    archive = foreign(tmp_path / "hostile.tar", member("engine/" + "x" * 300, size=3), form=form)
    assert "not a bundle of edgekd" in refusal(archive)


def test_a_compressed_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    subprocess.run(["gzip", "-k", bundle], check=True)
    assert refusal(bundle.with_suffix(".tar.gz"))


def test_a_size_beyond_the_archive_allocates_nothing(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    first = content[: content.index(b"edgekd@.service\0")]
    for size in (10**6, 8**11 - 1):
        (tmp_path / "bomb.tar").write_bytes(first + header("edgekd@.service", size) + bytes(2048))
        assert "truncated" in refusal(tmp_path / "bomb.tar")
    (tmp_path / "bomb.tar").write_bytes(header(SUMS, 8**11 - 1) + bytes(2048))
    assert "at most" in refusal(tmp_path / "bomb.tar")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    made = write_folder(tmp_path / "made", FILES)
    sums = render_sums({**hashes_in(made), "zeta": "0" * 64})
    blocks = header(SUMS, len(sums)) + sums + bytes(-len(sums) % 512)
    pack(made, tmp_path / "whole.tar")
    whole = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "less.tar").write_bytes(blocks + whole[whole.index(b"edgekd@.service\0") :])
    assert "expected zeta, which SHA256SUMS lists, got the end" in refusal(tmp_path / "less.tar")


def test_the_check_comes_before_any_other_file(bundle: Path, tmp_path: Path) -> None:
    def refuse(sums: bytes, signature: bytes | None) -> None:
        assert sums == render_sums(parse_sums(sums, "here"))
        assert signature is None
        raise BundleError("not trusted")

    with pytest.raises(BundleError, match="not trusted"):
        unpack(bundle, tmp_path / "out", refuse)
    assert list((tmp_path / "out").iterdir()) == []


def test_it_unpacks_into_an_empty_folder_only(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/engine").symlink_to("/etc")
    with pytest.raises(BundleError, match="expected an empty folder"):
        unpack(bundle, tmp_path / "out")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        unpack(tmp_path / "absent.tar", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "run").unlink(), "run is missing"),
        (lambda folder: (folder / "run").write_bytes(b"#!/bin/sh\r"), "run is damaged"),
        (lambda folder: (folder / "engine/more.bin").write_bytes(b""), "more.bin is not in SHA256SUMS"),
        (lambda folder: (folder / "more").symlink_to("run"), "a link or a device"),
        (lambda folder: (folder / SUMS).unlink(), "no unpacked bundle"),
        (lambda folder: (folder / SUMS).write_bytes(b"x"), "expected sorted names"),
    ],
)
def test_an_unpacked_bundle_that_changed_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    unpack(bundle, tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(BundleError, match=said):
        check_folder(tmp_path / "out")


@pytest.mark.parametrize(
    "names",
    [
        ["engine", "engine/a"],
        ["engine/a", "engine/A"],
        ["Engine/a", "engine/b"],
        [SUMS],
        [""],
        ["a/"],
        ["/a"],
        ["a//b"],
        ["a/../b"],
        ["."],
        ["ä"],
        ["x" * 101],
        ["x/" * 80 + "x"],
        [f"f{number}" for number in range(5000)],
    ],
)  # fmt: skip
def test_names_that_a_bundle_cannot_have(names: list[str]) -> None:
    with pytest.raises(BundleError):
        check_names(names)


@pytest.mark.parametrize(
    "text",
    [
        "{0}  manifest.json\n",
        "{0}  spec.json\n{0}  manifest.json\n",
        "{0}  manifest.json\n{0}  manifest.json\n{0}  spec.json\n",
        "{0} *manifest.json\n{0} *spec.json\n",
        "{0}  manifest.json\r\n{0}  spec.json\r\n",
        "{0}  manifest.json\n{0}  spec.json",
        "\n{0}  manifest.json\n{0}  spec.json\n",
        "{0}  ../x\n{0}  manifest.json\n{0}  spec.json\n",
        "{1}  manifest.json\n{0}  spec.json\n",
        "ä\n",
    ],
)  # fmt: skip
def test_sums_that_edgekd_does_not_write_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match="SHA256SUMS"):
        parse_sums(text.format("0" * 64, "A" * 64).encode(), "here")


@given(st.binary(max_size=2000))
@settings(max_examples=60)
def test_any_bytes_are_sums_or_one_line(content: bytes) -> None:
    try:
        assert render_sums(parse_sums(content, "here")) == content
    except BundleError as exc:
        assert "\n" not in str(exc)


PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}", fullmatch=True)


@given(st.lists(PART, min_size=1, max_size=4).map("/".join), st.integers(0, 8**11 - 1))
@settings(max_examples=100)
def test_headers_are_those_that_python_reads(name: str, size: int) -> None:
    try:
        check_names([name])
    except BundleError:
        return
    entry = tarfile.TarInfo.frombuf(header(name, size), "ascii", "strict")
    assert (entry.name, entry.size, entry.type, entry.mode) == (
        name,
        size,
        tarfile.REGTYPE,
        0o755 if name == "run" else 0o644,
    )

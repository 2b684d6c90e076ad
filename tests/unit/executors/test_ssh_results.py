"""What a board sends is cut into files at the right bytes, in whatever pieces it comes, and lies are found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError
from edgekd.executors.ssh.results import Receiver, RemoteFile, checked

NOTHING = hashlib.sha256(b"").hexdigest()


def announced(folder: Path, **contents: bytes) -> list[RemoteFile]:
    """Return files as a board announces them."""
    return [
        RemoteFile(name, folder / name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in contents.items()
    ]


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_pieces_of_any_size_become_the_files(piece: int, tmp_path: Path) -> None:
    contents = {"a": b"", "b": b"four", "c": b"", "d": b"seventy", "e": b""}
    receiver, stream = Receiver(announced(tmp_path, **contents)), b"fourseventy"
    for start in range(0, len(stream), piece):
        assert receiver.offset == start
        receiver.write(stream[start : start + piece])
    receiver.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    receiver = Receiver(announced(tmp_path, a=b"four"))
    receiver.write(b"fou")
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
    with pytest.raises(ArtifactError, match="a comes without its last 1 bytes"):
        receiver.close()
    assert not (tmp_path / "a").exists()


def test_more_than_was_announced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="more bytes than it announced"):
        Receiver(announced(tmp_path, a=b"four")).write(b"four+")
    with pytest.raises(ArtifactError, match="more bytes than it announced"):
        Receiver([]).write(b"+")


def test_another_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a does not match its hash"):
        Receiver(announced(tmp_path, a=b"four")).write(b"fOur")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "name",
    [
        "out/../x",
        "../x",
        "/x",
        "out",
        "out/",
        "out//x",
        "out/./x",
        "out/.x",
        "out/a\\b",
        "out/a\nb",
        "out/ü",
        "other/x",
        "",
        "log2",
    ],
)
def test_names_that_could_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no job writes"):
        checked({name: (NOTHING, 0)}, {"log": tmp_path / "log.txt"}, tmp_path, 100)


def test_names_of_a_jobs_files_lie_in_its_folder(tmp_path: Path) -> None:
    listed = {"log": (NOTHING, 1), "out/a.npz": (NOTHING, 2), "out/deep/er/b-c_d.bin": (NOTHING, 97)}
    found = checked(listed, {"log": tmp_path / "elsewhere.txt"}, tmp_path / "out", 100)
    assert [one.path for one in found] == [
        tmp_path / "elsewhere.txt", tmp_path / "out/a.npz", tmp_path / "out/deep/er/b-c_d.bin"
    ]  # fmt: skip
    with pytest.raises(ArtifactError, match="3 files of 0.00 GB; expected at most"):
        checked(listed, {"log": tmp_path / "log.txt"}, tmp_path, 99)


def test_each_file_of_the_hosts_own_has_its_limit(tmp_path: Path) -> None:
    places = {"result.json": tmp_path / "result.json", "log": tmp_path / "log.txt"}
    most = {"result.json": 10, "log": 20}
    listed = {"result.json": (NOTHING, 10), "log": (NOTHING, 20), "out/a": (NOTHING, 70)}
    assert len(checked(listed, places, tmp_path / "out", 100, most)) == 3
    for name, limit in most.items():
        with pytest.raises(ArtifactError, match=f"{name} of {limit + 1} bytes; expected at most {limit}"):
            checked({**listed, name: (NOTHING, limit + 1)}, places, tmp_path / "out", 1000, most)

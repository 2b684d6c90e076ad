"""Toolchain virtualenvs: made from a lock, whole or absent. The toolchain is a wheel made here; nothing is downloaded."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd.errors import ToolchainError
from edgekd.executors import venvs

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> venvs.Lock:
    """Return the lock of `tiny`, whose only package `tiny-toolkit` 1.0 is a wheel in the find-links folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_toolkit-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "answer = 42\n")
        info = "tiny_toolkit-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-toolkit\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    for name, value in {"FIND_LINKS": str(wheels), "NO_INDEX": "1"}.items():
        monkeypatch.setenv(f"UV_{name}", value)
        monkeypatch.setenv(f"PIP_{name}", value)
    return written(tmp_path, pinned(tmp_path))


def pinned(folder: Path) -> str:
    """Return the line of a lock for the wheel of `lock`."""
    (wheel,) = (folder / "wheels").iterdir()
    return f"tiny-toolkit==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def written(folder: Path, requirements: str, python: str = RUNNING) -> venvs.Lock:
    path = folder / "tiny.txt"
    path.write_text(f"# toolchain: tiny-toolkit\n# python: {python}\n{requirements}\n")
    return venvs.read_lock("tiny", path)


def test_requirements_and_pythons_name_the_folder_and_comments_do_not(tmp_path: Path) -> None:
    line = "tiny-toolkit==1.0 --hash=sha256:00"
    first = written(tmp_path, line).folder
    assert written(tmp_path, f"# a comment\n{line}").folder == first
    assert written(tmp_path, "tiny-toolkit==1.0 --hash=sha256:01").folder != first
    assert written(tmp_path, line, python="3.9").folder != first


def test_install_makes_what_find_finds(lock: venvs.Lock, tmp_path: Path) -> None:
    root = tmp_path / "root"
    made = venvs.install(lock, root)
    assert made.packages == {"tiny-toolkit": "1.0"} | {
        k: v for k, v in made.packages.items() if k in ("pip", "setuptools")
    }
    assert made.path.parent == root
    assert made.size_bytes > 0
    assert venvs.find(lock, root) == made
    assert venvs.installed(root) == [made]
    assert venvs.install(lock, root).created == made.created


@pytest.mark.slow
@pytest.mark.parametrize("has_uv", [True, False])
def test_the_package_can_be_imported_in_it_after_the_rename(
    has_uv: bool, lock: venvs.Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    if has_uv and venvs.uv() is None:
        pytest.skip("no uv here")
    if not has_uv:
        monkeypatch.setattr(venvs, "uv", lambda: None)
    made = venvs.install(lock, tmp_path / "root")
    assert made.installer == ("uv" if has_uv else "pip")
    printed = subprocess.run([made.python, "-c", "import tiny; print(tiny.answer)"], capture_output=True, text=True)
    assert printed.stdout == "42\n"


def test_a_failed_install_leaves_nothing_that_is_found(lock: venvs.Lock, tmp_path: Path) -> None:
    absent = written(tmp_path, f"{pinned(tmp_path)}\nnot-there==3.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(ToolchainError, match=r"install failed with exit code \d+: .*not-there.*whole log: ") as caught:
        venvs.install(absent, tmp_path / "root")
    assert "\n" not in str(caught.value)
    assert venvs.installed(tmp_path / "root") == []
    with pytest.raises(ToolchainError, match="toolchain tiny 1.0 is not installed; edgekd toolchain install tiny"):
        venvs.find(absent, tmp_path / "root")


@pytest.mark.slow
@pytest.mark.parametrize("has_uv", [True, False])
@pytest.mark.parametrize("hash_", ["", f" --hash=sha256:{'0' * 64}"], ids=["no hash", "another hash"])
def test_a_package_without_the_locks_hash_is_not_installed(
    hash_: str, has_uv: bool, lock: venvs.Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_uv and venvs.uv() is None:
        pytest.skip("no uv here")
    if not has_uv:
        monkeypatch.setattr(venvs, "uv", lambda: None)
    wrong = written(tmp_path, f"tiny-toolkit==1.0{hash_}")
    with pytest.raises(ToolchainError, match=r"install failed with exit code \d+: .*(hash|sha256)") as caught:
        venvs.install(wrong, tmp_path / "root")
    assert "\n" not in str(caught.value)
    assert venvs.installed(tmp_path / "root") == []


def test_a_half_made_one_is_never_used_and_made_again(lock: venvs.Lock, tmp_path: Path) -> None:
    root = tmp_path / "root"
    made = venvs.install(lock, root)
    (made.path / venvs.FACTS).unlink()  # what a kill before the end leaves
    shutil.copytree(made.path, root / f".making-{lock.folder}", symlinks=True)
    with pytest.raises(ToolchainError, match="is not installed"):
        venvs.find(lock, root)
    assert venvs.install(lock, root).python.exists()
    assert not (root / f".making-{lock.folder}").exists()


def test_another_lock_needs_another_virtualenv(lock: venvs.Lock, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = venvs.install(lock, root)
    changed = written(tmp_path, f"{pinned(tmp_path)} --hash=sha256:{'0' * 64}")
    with pytest.raises(ToolchainError, match=r"is not installed \(there is one of other requirements, 1.0\)"):
        venvs.find(changed, root)
    second = venvs.install(changed, root)
    assert second.path != first.path
    (root / f".removing-{first.path.name}/left").mkdir(parents=True)  # of a removal that was killed
    assert sorted(venvs.remove("tiny", root)) == sorted([first.path, second.path])
    assert [path for path in root.iterdir() if path.is_dir()] == []


def test_removing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="toolchain tiny is not installed in"):
        venvs.remove("tiny", tmp_path)


def test_what_a_killed_removal_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".removing-tiny-1.0-f/left").mkdir(parents=True)
    assert venvs.remove("tiny", tmp_path) == []
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_python_that_is_not_here_is_named(lock: venvs.Lock, tmp_path: Path) -> None:
    other = written(tmp_path, "tiny-toolkit==1.0", python="3.99")
    with pytest.raises(ToolchainError, match=r"needs Python 3\.99, this is .*install python3\.99"):
        venvs.install(other, tmp_path / "root")


def test_the_folder_is_the_option_or_the_variable_or_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.delenv(venvs.ROOT_VARIABLE, raising=False)
    assert venvs.root_of() == Path("/cache/edgekd/toolchains")
    monkeypatch.setenv(venvs.ROOT_VARIABLE, str(tmp_path))
    assert venvs.root_of() == tmp_path
    assert venvs.root_of(Path("/option")) == Path("/option")


@pytest.mark.parametrize("name", venvs.locks())
def test_every_shipped_lock_pins_every_package_exactly_and_by_hash(name: str) -> None:
    lock = venvs.lock_of(name)
    text = "\n".join(line for line in lock.path.read_text().splitlines() if not line.startswith("#"))
    packages = text.replace(" \\\n", " ").splitlines()
    assert len(venvs.pinned(lock)) == len(packages) > 1
    for package in packages:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+", package), package
    assert lock.pythons

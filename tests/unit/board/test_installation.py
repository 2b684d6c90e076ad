"""Hints to install an extra fit how edgekd came here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.board import installation
from edgekd.executors.portable import copy_to
from tests.conftest import REPOSITORY


def came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: dict[str, object]) -> None:
    """Put edgekd into a folder of packages with the facts that pip writes (PEP 610)."""
    monkeypatch.setattr(installation, "_HERE", tmp_path / "site-packages")
    info = tmp_path / "site-packages" / "edgekd-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd\nVersion: 0.1.0\n")
    if facts:
        (info / "direct_url.json").write_text(json.dumps(facts))
    monkeypatch.syspath_prepend(str(info.parent))


def test_in_a_checkout_the_checkout_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert installation.install("export") == f"pip install -e '{REPOSITORY}[export]'"
    monkeypatch.chdir(REPOSITORY)
    assert installation.install("export") == "pip install -e '.[export]'"


def test_a_copy_of_a_checkout_is_installed_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    came_from(monkeypatch, tmp_path, {"url": f"file://{REPOSITORY}", "dir_info": {}})
    monkeypatch.chdir(tmp_path)
    assert installation.install("report") == f"pip install '{REPOSITORY}[report]'"


def test_a_wheel_and_a_repository_are_named_by_their_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    came_from(monkeypatch, tmp_path / "file", {"url": "file:///w/edgekd-0.1.0-py3-none-any.whl", "archive_info": {}})
    assert installation.install("report") == "pip install 'edgekd[report] @ file:///w/edgekd-0.1.0-py3-none-any.whl'"
    git = {"url": "https://example.org/edgekd.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    came_from(monkeypatch, tmp_path / "git", git)
    assert installation.install("report") == "pip install 'edgekd[report] @ git+https://example.org/edgekd.git'"


def test_from_an_index_the_name_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    came_from(monkeypatch, tmp_path, {})
    assert installation.install("openvino") == "pip install 'edgekd[openvino]'"
    assert installation.update() == "pip install --upgrade edgekd, from where this one came"


def test_on_a_board_the_runtime_itself_is_installed(tmp_path: Path) -> None:
    """edgekd lies there as a copy of its portable part, and is not installed."""
    copy_to(tmp_path, [importlib.import_module("edgekd.targets.onnxruntime.target")])
    ask = "from edgekd.board.installation import install; print(install('onnxruntime'))"
    said = subprocess.run(
        [sys.executable, "-S", "-c", ask], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, cwd=tmp_path
    )
    assert said.stdout == b"pip install onnxruntime\n", said.stderr


def test_no_message_says_by_itself_how_an_extra_is_installed() -> None:
    own = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "edgekd").rglob("*.py")
           if "pip install 'edgekd[" in path.read_text(encoding="utf-8")}  # fmt: skip
    assert own == {"edgekd/board/installation.py"}

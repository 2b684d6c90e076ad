"""The how-to on boards is true: its commands are typed as they stand, against a board that has the page's name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boards.fixtures import StartBoard
from tests.conftest import REPOSITORY
from tests.integration.test_docs import blocks, checkout

PAGE = REPOSITORY / "docs" / "howto" / "measure-on-a-board.md"
pytestmark = pytest.mark.slow


def test_the_page_works_as_a_reader_types_it(
    start_board: StartBoard,
    ssh_to: Callable[..., None],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = start_board("--user", "me", host="raspberrypi.local")
    board.run("mkdir -p edgekd/bin && cat >edgekd/bin/python", b'#!/bin/sh\nexec python3 "$@"\n')
    board.run("chmod +x edgekd/bin/python")
    ssh_to(board)
    folder = checkout(tmp_path / "checkout", tiny_run)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEKD_BOARDS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    said: dict[str, str] = {}
    for block in blocks(PAGE):
        for line in block.text.splitlines() if block.language == "bash" else ():
            program, *words = shlex.split(line, comments=True)
            assert program == "edgekd", block.where
            command = [sys.executable, "-m", "edgekd.cli.main", *words]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.where}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            said[" ".join(words[:2])] = done.stdout
    assert said["board add"].splitlines()[-1] == "next: edgekd run quickstart --board pi"
    shown = next(block for block in blocks(PAGE) if block.text.startswith("ok "))
    assert names_of(said["board add"]) == names_of(shown.text)
    rows = [line.split()[0] for line in said["run quickstart"].splitlines() if "@pi " in line]
    assert rows == ["onnxruntime-fp32@pi", "onnxruntime-int8@pi", "openvino-fp32@pi", "openvino-int8@pi"]
    assert board.run("ls -A .cache") == ""  # cleaned


def names_of(text: str) -> list[str]:
    """Return the names of the checks in the output of `edgekd board add`."""
    return re.findall(r"^(?:ok|note|wrong) +(\w+)", text, re.M)


def test_the_inventory_on_the_page_and_the_messages_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "edgekd" / "executors").rglob("*.py"))
    table = PAGE.read_text().partition("## Messages")[2].partition("##")[0]
    messages = re.findall(r"^\| `([^`]+)`", table, re.M)
    # What stands between the values that a message has in it.
    fragments = ["unreachable (", "its host key is unknown", "its host key has changed", "it refuses your key", "not there",
                 "expected 3.8 or newer", "has none", "its disk is mounted", "in use by", "no contact (", "times during",
                 "is not quiet (", "power mode: expected", "none readable"]  # fmt: skip
    for fragment in fragments:
        assert any(fragment in message for message in messages), fragment
        assert fragment.replace("3.8", "{oldest}") in sources or fragment in sources, fragment

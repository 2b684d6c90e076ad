"""The how-to on deployment is true: its commands are typed as they stand, against a board that has the page's name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boards.fixtures import StartBoard, why_no_systemd
from tests.conftest import REPOSITORY
from tests.integration.test_docs import blocks, checkout

PAGE = REPOSITORY / "docs" / "howto" / "deploy.md"


@pytest.mark.slow
def test_the_page_works_as_a_reader_types_it(
    start_board: StartBoard,
    ssh_to: Callable[..., None],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line of its bash blocks ends well; only the port is another one, because a test may not take 8080."""
    if reason := why_no_systemd():
        pytest.skip(reason)
    board = start_board("--systemd", "--user", "me", host="raspberrypi.local")
    ssh_to(board)
    folder = checkout(tmp_path / "checkout", tiny_run)
    inventory = tmp_path / "boards.yaml"
    inventory.write_text("schema: edgekd.boards/1\nboards:\n  pi:\n    ssh: me@raspberrypi.local\n")
    (tmp_path / "edgekd").write_text(f'#!/bin/sh\nexec {sys.executable} -m edgekd.cli.main "$@"\n')
    (tmp_path / "edgekd").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "EDGEKD_BOARDS": str(inventory), "PYTHONPATH": str(folder)}
    said: list[tuple[str, str]] = []
    for block in blocks(PAGE):
        for line in block.text.splitlines() if block.language == "bash" else ():
            line = line.replace("8080", str(port))
            done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.where}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            said.append((line, done.stdout))
    deployed = [re.findall(r"^\w+", text, re.M) for line, text in said if "--name lane" in line]
    shown = next(block.text for block in blocks(PAGE) if block.text.startswith("room "))
    assert deployed[1] == re.findall(r"^\w+", shown, re.M)
    assert [steps[-3:] for steps in deployed[2:]] == [["health", "tidy", "next"]] * 2
    assert next(text for line, text in said if line.endswith("--list")).startswith("lane: active, http://127.0.0.1:")
    assert "signed by me@example.org" in said[-2][1]
    assert board.run("ls .local/share/edgekd") == "allowed_signers\n"


def test_the_messages_on_the_page_are_those_of_the_code() -> None:
    packages = [REPOSITORY / "edgekd" / name for name in ("release", "deploy", "runner", "executors/ssh")]
    sources = "".join(path.read_text() for package in packages for path in package.rglob("*.py"))
    table = PAGE.read_text().partition("## Messages")[2].partition("##")[0]
    # What stands between the values that a message has in it.
    fragments = ["the inventory says", "unreachable (", "is damaged: its hash is not that in", "no room in",
                 "the bundle is not signed",
                 "does not allow", "is not valid for this bundle", "the engine is for chip",
                 "the engine loads only in the runtime version",
                 "is older than the current", "RMS error", "of the results differ", "the engine's process died by",
                 "does not stay up", "does not answer", "another process has its port", "another process changes its releases",
                 "expected a link"]  # fmt: skip
    for fragment in fragments:
        assert fragment in table, fragment
        assert fragment in sources, fragment

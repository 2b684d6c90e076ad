"""A board whose commands and shell are those of busybox."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import ToolchainCrashError, ToolchainTimeoutError
from edgekd.executors.outcomes import TIMEOUT_VARIABLE
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import DONE, FOLDER, executor, random_file, run

pytestmark = pytest.mark.slow
Know = Callable[..., None]


@pytest.fixture
def busybox_board(start_board: StartBoard, ssh_to: Know) -> SshdBoard:
    """A board whose commands and shell are busybox's, where that has them."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed: apt-get install busybox")
    board = start_board()
    commands = board.folder / "bin"
    shutil.copy(busybox, commands / "busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if (commands / name).is_symlink():
            (commands / name).unlink()
            (commands / name).symlink_to("busybox")
    ssh_to(board)
    return board


def test_busybox_is_enough_for_store_and_jobs(
    busybox_board: SshdBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = random_file(tmp_path / "large", 5_000_000), random_file(tmp_path / "small", 5000)
    with executor(busybox_board, f"cat in/large in/small >out/both; {DONE}") as there:
        for _ in range(2):
            assert run(there, tmp_path, large=large, small=small) == {"done": True}
    assert (tmp_path / "out/both").read_bytes() == large.read_bytes() + small.read_bytes()
    script = "head -c 3000000 /dev/zero | tr '\\0' x; sleep 60"
    with executor(busybox_board, script) as there, pytest.raises(ToolchainCrashError, match="printed more than 1 MiB"):
        run(there, tmp_path)
    monkeypatch.setenv(TIMEOUT_VARIABLE, "1")
    with executor(busybox_board, "sleep 704") as there, pytest.raises(ToolchainTimeoutError, match="within 1 s"):
        run(there, tmp_path)
    assert "sleep 704" not in busybox_board.status()
    assert busybox_board.run(f"ls {FOLDER}/jobs {FOLDER}/in").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]

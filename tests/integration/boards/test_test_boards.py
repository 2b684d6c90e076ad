"""The test boards do what the other tests believe of them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.boards.fixtures import PYTHON_38, SshdBoard, StartBoard, board_python

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[3]
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def test_the_board_has_python_with_a_runtime_and_sees_nothing_of_the_person_who_tests(
    loopback_board: SshdBoard,
) -> None:
    said = loopback_board.run("python3 -c 'import sys, numpy, onnxruntime; print(*sys.version_info[:2])'")
    expected = "3 8" if board_python() == PYTHON_38 else f"{sys.version_info[0]} {sys.version_info[1]}"
    assert said.split("\n")[-2] == expected
    assert loopback_board.run("id -un; pwd").split() == ["board", "/home/board"]
    # The way to the interpreter is there, where that lies below /tmp.
    assert set(loopback_board.run("ls /tmp").split()) <= {*REPOSITORY.parts, *Path(sys.prefix).parts}
    assert loopback_board.run(f"ls {REPOSITORY}/edgekd", check=False).count("No such file") == 1
    assert "not found" in loopback_board.run("git --version", check=False)


def test_what_runs_on_the_board_outlives_a_cut(start_board: StartBoard) -> None:
    board = start_board()
    board.run("setsid sh -c 'sleep 60; true' </dev/null >/dev/null 2>&1 &")
    with subprocess.Popen(["ssh", "-F", str(board.ssh_config), "board", "echo here; sleep 60"], stdout=-1) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"here\n"
        board.cut()
        assert session.wait(10) == 255
    assert "sleep 60; true" in board.run("ps -e -o args")


def test_a_frozen_board_says_nothing_until_it_is_thawed(start_board: StartBoard) -> None:
    board = start_board()
    board.freeze()
    command = ["ssh", "-F", str(board.ssh_config), "-o", "ConnectTimeout=1", "board", "true"]
    assert subprocess.run(command, capture_output=True).returncode == 255
    board.thaw()
    assert board.run("echo back") == "back\n"


def test_a_reboot_ends_every_process_and_changes_the_boot_id(start_board: StartBoard) -> None:
    board = start_board()
    before = board.run(BOOT_ID)
    board.run("touch kept; setsid sleep 61 </dev/null >/dev/null 2>&1 &")
    board.reboot()
    assert board.run(BOOT_ID) != before
    assert "sleep 61" not in board.run("ps -e -o args")
    assert board.run("ls") == "kept\n"


def test_the_disk_of_a_board_is_full_at_its_size(start_board: StartBoard) -> None:
    assert "No space left" in start_board("--disk", "8m").run("dd if=/dev/zero of=big bs=1M count=9", check=False)


def test_the_clock_of_a_board_can_be_wrong(start_board: StartBoard) -> None:
    if not any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")):
        pytest.skip("needs libfaketime: apt-get install libfaketime")
    behind_s = time.time() - int(start_board("--clock", "-3days").run("date +%s"))
    assert behind_s == pytest.approx(3 * 86400, abs=600)


def test_a_board_shows_recorded_sensors_as_its_sys(start_board: StartBoard, tmp_path: Path) -> None:
    zone = tmp_path / "sys" / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("-5000\n")
    board = start_board("--sys", str(tmp_path / "sys"), "--python", "none")
    assert board.run("cat /sys/class/thermal/thermal_zone0/temp") == "-5000\n"
    assert "not found" in board.run("python3", check=False)


def test_nothing_is_left_of_a_board_that_is_removed(start_board: StartBoard) -> None:
    board = start_board()
    board.run("setsid sleep 62 </dev/null >/dev/null 2>&1 &")
    subprocess.run([str(board.script), str(board.folder), "remove"], check=True)
    assert not board.folder.exists()
    assert "sleep 62" not in subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True).stdout


def test_the_emulated_board_is_aarch64_with_a_runtime(emulated_board: SshdBoard) -> None:
    said = emulated_board.run("python3 -c 'import platform, onnxruntime; print(platform.machine())'")
    assert said.split("\n")[-2] == "aarch64"

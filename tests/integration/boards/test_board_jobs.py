"""Jobs on a board: each way in which one can end, and who may use the board when."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.board.files import sha256_of
from edgekd.board.job import Job
from edgekd.errors import BoardError, TargetError, ToolchainCrashError, ToolchainTimeoutError
from edgekd.executors.outcomes import TIMEOUT_VARIABLE
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import DONE, FOLDER, LIMITS, RAN, executor, random_file, run, wait_until

pytestmark = pytest.mark.slow
Know = Callable[..., None]


@pytest.fixture
def board(loopback_board: SshdBoard, ssh_to: Know) -> SshdBoard:
    """The shared board, without what other tests left on it."""
    ssh_to(loopback_board)
    loopback_board.run(f"rm -rf {FOLDER} runs go")
    return loopback_board


def test_a_job_runs_with_the_boards_own_python_and_runtime(board: SshdBoard, tmp_path: Path) -> None:
    expected = board.run("python3 -c 'import onnxruntime; print(onnxruntime.__version__)'").split()[-1]
    with executor(board) as there:
        assert run(there, tmp_path, Job("version", "onnxruntime")) == {"runtime_version": expected}
        assert there.identity().runtimes["onnxruntime"] == expected
        assert there.facts()["environment"]["python"] == board.run("python3 -V").split()[-1]
        assert there.holder() == ""
    assert board.run(f"ls {FOLDER}/jobs {FOLDER}/in").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]


def test_files_reach_the_job_by_name_and_what_it_writes_comes_back(board: SshdBoard, tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"four")
    script = f"mkdir out/deep && cat 'in/net/a b.bin' in/x >out/deep/both && : >out/empty && echo said && {DONE}"
    with executor(board, script, environment={"WORD": "x y"}) as there:
        (tmp_path / "out").mkdir()
        files = {"net/a b.bin": source, "x": source}
        assert there.run_job(Job("probe", "onnxruntime"), files, tmp_path / "out", tmp_path / "log.txt") == {
            "done": True
        }
    assert (tmp_path / "out/deep/both").read_bytes() == b"fourfour"
    assert (tmp_path / "out/empty").read_bytes() == b""
    assert (tmp_path / "log.txt").read_text() == "said\n"


def test_the_inventorys_environment_reaches_the_job(board: SshdBoard, tmp_path: Path) -> None:
    with executor(board, f'echo "$WORD" && {DONE}', environment={"WORD": "a 'b' $HOME"}) as there:
        run(there, tmp_path)
    assert (tmp_path / "log.txt").read_text() == "a 'b' $HOME\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo last words; kill -s SEGV $$",
            "crashed with SIGSEGV; the last of its log: '(last words|Segmentation.*)'",
        ),
        ("kill -s KILL $$", r"crashed with SIGKILL \(often: out of memory\)"),
        ("echo last words; exit 3", "ended with exit code 3 and without a result; the last of its log: 'last words'"),
        ("echo '{' >result.json", "left an unreadable result"),
        ("ln -s /etc/passwd result.json", "without a result"),
    ],
)
def test_a_job_that_dies_is_a_crash_with_the_end_of_its_log(
    script: str, message: str, board: SshdBoard, tmp_path: Path
) -> None:
    with executor(board, script) as there, pytest.raises(ToolchainCrashError, match=message):
        run(there, tmp_path)
    assert board.run(f"ls {FOLDER}/jobs") == ""


def test_a_job_that_hangs_is_killed_with_all_its_processes(
    board: SshdBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, "1")
    script = "trap '' TERM; echo begun; sleep 701 & sleep 702"
    with executor(board, script) as there, pytest.raises(ToolchainTimeoutError, match="within 1 s.*'begun'"):
        run(there, tmp_path)
    assert "sleep" not in board.run("ps -e -o args")


def test_what_a_job_leaves_behind_is_killed_when_it_ends(board: SshdBoard, tmp_path: Path) -> None:
    with executor(board, f"sleep 703 & {DONE}") as there:
        assert run(there, tmp_path) == {"done": True}
    assert "sleep" not in board.run("ps -e -o args")


def test_a_process_that_leaves_the_group_of_a_job_does_not_hold_the_board_or_change_its_log(
    board: SshdBoard, tmp_path: Path
) -> None:
    script = f"echo said; setsid sh -c 'sleep 12; while :; do echo more || exit; sleep 0.01; done' & sleep 1; {DONE}"
    with executor(board, script) as there:
        assert run(there, tmp_path) == {"done": True}
        assert there.holder() == ""
    assert (tmp_path / "log.txt").read_text() == "said\n"


def test_a_flood_of_output_ends_the_job_and_no_more_than_the_limit_is_written(board: SshdBoard, tmp_path: Path) -> None:
    script = f"head -c 300000000 /dev/zero | tr '\\0' x; {DONE}"
    with executor(board, script) as there, pytest.raises(ToolchainCrashError, match="printed more than 1 MiB"):
        run(there, tmp_path)
    assert (tmp_path / "log.txt").stat().st_size == LIMITS.log_bytes


def test_a_second_user_waits_and_is_told_who_holds_the_board(
    board: SshdBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = f"echo begins >>~/runs; while [ ! -e ~/go ]; do sleep 0.1; done; echo ends >>~/runs; {DONE}"
    monkeypatch.setenv("LOGNAME", "anna")
    with executor(board, script) as first, executor(board, script) as second, ThreadPoolExecutor() as pool:
        annas = pool.submit(run, first, tmp_path / "anna")
        wait_until(lambda: "begins" in board.run("cat runs", check=False))
        monkeypatch.setenv("LOGNAME", "hanna")
        hannas = pool.submit(run, second, tmp_path / "hanna")
        wait_until(
            lambda: any("is in use by anna@" in line and "onnxruntime probe" in line for line in caplog.messages)
        )
        board.run("touch go")
        assert annas.result() == hannas.result() == {"done": True}
    assert board.run("cat runs").split() == ["begins", "ends"] * 2


def test_nothing_is_sent_to_a_board_while_a_job_runs_there(board: SshdBoard, tmp_path: Path) -> None:
    data = random_file(tmp_path / "x", 5_000_000)
    script = f"while [ ! -e ~/go ]; do sleep 0.1; done; {DONE}"
    with executor(board, script) as first, executor(board, DONE) as second, ThreadPoolExecutor() as pool:
        running = pool.submit(run, first, tmp_path / "first")
        wait_until(lambda: first.holder() != "")
        waiting = pool.submit(run, second, tmp_path / "second", x=data)
        time.sleep(2)
        assert sha256_of(data) not in board.run(f"ls {FOLDER}/in {FOLDER}/store")
        board.run("touch go")
        assert running.result() == waiting.result() == {"done": True}


def test_a_second_user_gives_up_after_the_wait(
    board: SshdBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    script = f"{RAN}; sleep 60"
    with (
        executor(board, script) as first,
        executor(board, DONE, replace(LIMITS, wait_s=1)) as second,
        ThreadPoolExecutor() as pool,
    ):
        annas = pool.submit(run, first, tmp_path / "anna")
        wait_until(lambda: first.holder().startswith("anna@"))
        with pytest.raises(BoardError, match="in use by anna@.* for more than 1 s.*edgekd board cancel board"):
            run(second, tmp_path / "hanna")
        assert second.cancel().startswith("anna@")
        with pytest.raises(BoardError, match="was ended by `edgekd board cancel board`"):
            annas.result()
        assert second.cancel() == ""


def test_a_job_whose_board_reboots_is_done_once_more(
    start_board: StartBoard, ssh_to: Know, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = start_board()
    ssh_to(board)
    script = f"{RAN}; [ $(wc -l <~/runs) = 2 ] || sleep 60; {DONE}"
    with executor(board, script) as there, ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING):
        done = pool.submit(run, there, tmp_path)
        wait_until(lambda: board.run("cat runs", check=False) == "ran\n")
        board.reboot(1)
        assert done.result() == {"done": True}
    assert board.run("cat runs") == "ran\nran\n"
    assert [line for line in caplog.messages if "rebooted during onnxruntime probe" in line]


def test_a_board_that_reboots_twice_in_a_job_is_an_error(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board()
    ssh_to(board)
    with executor(board, f"{RAN}; sleep 60") as there, ThreadPoolExecutor() as pool:
        done = pool.submit(run, there, tmp_path)
        for count in (1, 2):
            wait_until(lambda count=count: board.run("cat runs", check=False) == count * "ran\n")  # type: ignore[misc]
            board.reboot()
        with pytest.raises(BoardError, match="rebooted 2 times"):
            done.result()


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (
            "none",
            "python: python3: not there; expected 3.8 or newer; on the board: sudo apt install python3 python3-numpy",
        ),
        ("3.6", "python: python3 is 3.6.15; expected 3.8 or newer; on the board: "),
        ("3.8", "numpy: python3 has none; on the board: sudo apt install python3-numpy"),
    ],
)
def test_a_board_without_what_every_job_needs_says_what_to_install(
    python: str, message: str, start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    if python != "none":
        found = sorted((Path.home() / ".pyenv/versions").glob(f"{python}.*/bin/python"))
        if not found:
            pytest.skip(f"no Python {python} of pyenv here")
        python = str(found[0])
    board = start_board("--python", python)
    ssh_to(board)
    with executor(board) as there, pytest.raises(TargetError, match=message):
        run(there, tmp_path)


def test_a_board_with_another_chip_is_refused_before_anything_is_pushed(
    start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    tree = tmp_path / "sys" / "firmware" / "devicetree" / "base"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Radxa ROCK 5B\0")
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    board = start_board("--sys", str(tmp_path / "sys"))
    ssh_to(board)
    with executor(board, DONE, chip="rk3588") as there:
        assert run(there, tmp_path) == {"done": True}
    board.run("rm -r .cache worker*")
    message = "chip: expected jetson-orin, got rk3588 .Radxa ROCK 5B.; check that board is the right board"
    with executor(board, chip="jetson-orin") as there, pytest.raises(TargetError, match=message):
        run(there, tmp_path)
    assert board.run("ls -A") == ""


def test_a_clock_that_is_off_changes_nothing(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board("--clock", "-3days")
    ssh_to(board)
    with executor(board, f"{RAN}; {DONE}") as there:
        assert run(there, tmp_path) == {"done": True}

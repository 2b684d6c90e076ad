"""Faults of a board itself: a disk that hangs, a power cut, a change in mid-job; and runs that meet each other's jobs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.board.arguments import CompileArguments
from edgekd.board.job import Job
from edgekd.core import plugins
from edgekd.errors import BoardError, WorkspaceError
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import (
    DONE,
    FOLDER,
    LIMITS,
    RAN,
    executor,
    kill_host_in_job,
    random_file,
    run,
    slow_down,
    wait_until,
)
from tests.small_nets import segmenter

pytestmark = pytest.mark.slow
MB = 1_000_000
IMPATIENT = replace(LIMITS, link=replace(LIMITS.link, answer_s=2, give_up_s=4))


@pytest.fixture
def board(start_board: StartBoard, ssh_to: Callable[..., None]) -> SshdBoard:
    """A board of this test's own."""
    found = start_board()
    ssh_to(found)
    return found


def test_a_board_that_hangs_at_first_contact_is_one_line(board: SshdBoard) -> None:
    board.run("cat >hangs && chmod +x hangs", b"#!/bin/sh\nexec sleep 1000\n")
    message = "board board: no answer within 2 s; its disk or its system may hang; try: ssh board df"
    with executor(board, limits=IMPATIENT, python="~/hangs") as there, pytest.raises(BoardError, match=message):
        there.probe()


def test_a_disk_that_hangs_later_is_given_up_like_a_lost_link(board: SshdBoard, tmp_path: Path) -> None:
    """A read of a FIFO without a writer waits for ever, as a read of a disk that hangs."""
    with executor(board, DONE, IMPATIENT) as there:
        run(there, tmp_path)
        board.run(f"cd {FOLDER} && rm index && mkfifo index")
        message = "board board: no contact for 4 s .no answer within .*; its job continues; run the command again"
        with pytest.raises(BoardError, match=message):
            run(there, tmp_path)


def test_a_disk_that_hangs_for_a_while_is_waited_for(
    board: SshdBoard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board.run(f"mkdir -p {FOLDER} && mkfifo {FOLDER}/index")
    limits = replace(IMPATIENT, link=replace(IMPATIENT.link, give_up_s=120))
    with (
        executor(board, DONE, limits) as there,
        ThreadPoolExecutor() as pool,
        caplog.at_level(logging.WARNING),
    ):
        done = pool.submit(run, there, tmp_path)
        wait_until(lambda: any("no answer within" in line for line in caplog.messages))
        board.run(f"cd {FOLDER} && rm index && : >index")
        assert done.result() == {"done": True}


def test_a_slow_transfer_is_no_hanging_board(board: SshdBoard, tmp_path: Path) -> None:
    slow_down(board, 2 * MB)
    data = random_file(tmp_path / "x", 10 * MB)  # 5 s each way
    with executor(board, f"cp in/x out/x; {DONE}", IMPATIENT) as there:
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()


def test_after_a_power_cut_edgekds_own_code_is_unpacked_again(board: SshdBoard, tmp_path: Path) -> None:
    with executor(board) as there:
        expected = run(there, tmp_path, Job("version", "onnxruntime"))
        board.run(f"find {FOLDER}/code -name '*.py' | while read -r one; do : >$one; done")
        board.reboot()
        assert run(there, tmp_path, Job("version", "onnxruntime")) == expected


@pytest.mark.parametrize("rest", ["", "why \ncode 0\nfree 1000\n"])
def test_after_a_power_cut_a_job_whose_end_was_not_written_is_done_again(
    rest: str, board: SshdBoard, tmp_path: Path
) -> None:
    data = random_file(tmp_path / "x", 1000)
    script = f"{RAN}; while [ ! -e ~/go ]; do sleep 0.1; done; cp in/x out/x; {DONE}"
    with executor(board, script) as there:
        kill_host_in_job(board, tmp_path, data)
        (board.home / "go").touch()
        wait_until(lambda: bool(list(board.home.glob(f"{FOLDER}/jobs/*/ended"))))
        (ended,) = board.home.glob(f"{FOLDER}/jobs/*/ended")
        ended.write_text(rest)
        board.reboot()
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (board.home / "runs").read_text() == "ran\nran\n"


def test_what_killed_scripts_left_does_not_stop_later_ones_of_the_same_number(board: SshdBoard, tmp_path: Path) -> None:
    data = random_file(tmp_path / "x", 1000)
    make = f"import os; [os.makedirs(f'{FOLDER}/in/{{name}}.{{n}}') for n in range(1000) for name in ('look', 'small', 'gone')]"
    board.run("python3 -", make.encode())
    with executor(board, f"cp in/x out/x; {DONE}") as there:
        assert run(there, tmp_path, x=data) == {"done": True}


def test_a_run_whose_host_was_killed_joins_its_job_while_that_runs(board: SshdBoard, tmp_path: Path) -> None:
    """Its own job holds the board: no question about the board waits for that, and its progress is seen."""
    data = random_file(tmp_path / "x", 1000)
    half = """echo '["half", 0.5]' >progress.json"""
    script = f"{RAN}; {half}; while [ ! -e ~/go ]; do sleep 0.1; done; cp in/x out/x; {DONE}"
    shown: list[tuple[str, float]] = []
    with executor(board, script, replace(LIMITS, wait_s=1)) as there, ThreadPoolExecutor() as pool:
        kill_host_in_job(board, tmp_path, data)
        there.prepare()
        done = pool.submit(
            there.run_job, Job("probe", "onnxruntime"), {"x": data}, tmp_path / "out", tmp_path / "log.txt",
            lambda what, share: shown.append((what, share)),
        )  # fmt: skip
        wait_until(lambda: ("half", 0.5) in shown)
        (board.home / "go").touch()
        assert done.result() == {"done": True}
    assert (board.home / "runs").read_text() == "ran\n"


def test_two_runs_of_one_job_both_have_its_result(board: SshdBoard, tmp_path: Path) -> None:
    slow_down(board, 4 * MB)
    data = random_file(tmp_path / "x", 8 * MB)
    script = f"{RAN}; cp in/x out/x; {DONE}"
    with executor(board, script) as first, executor(board, script) as second, ThreadPoolExecutor() as pool:
        places = {first: tmp_path / "first", second: tmp_path / "second"}
        done = [pool.submit(run, there, folder, x=data) for there, folder in places.items()]
        assert [one.result() for one in done] == [{"done": True}] * 2
    for folder in places.values():
        assert (folder / "out/x").read_bytes() == data.read_bytes()


def test_a_job_that_has_just_begun_is_cancelled(board: SshdBoard, tmp_path: Path) -> None:
    """Between the lock and the job's process group: `mkfifo` takes its time here."""
    tool = board.folder / "bin" / "mkfifo"
    real = tool.readlink()
    tool.unlink()
    tool.write_text(f'#!/bin/sh\nsleep 2\nexec {real} "$@"\n')
    tool.chmod(0o755)
    with executor(board, "sleep 120") as there, ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, there, tmp_path)
        wait_until(lambda: there.holder() != "")
        assert "onnxruntime probe" in there.cancel()
        with pytest.raises(BoardError, match="was ended by `edgekd board cancel board`"):
            job.result()
        assert "sleep 120" not in board.run("ps -e -o args")


def test_a_board_whose_power_mode_changes_during_a_measurement_is_refused(
    start_board: StartBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    governor = tmp_path / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("performance\n")
    board = start_board("--sys", str(tmp_path / "sys"))
    ssh_to(board)
    with executor(board, DONE) as there:
        there.prepare()
        state = there.facts()["state"]
        assert there.confirm({"before": state, "after": state}) == []
        governor.write_text("powersave\n")
        with pytest.raises(BoardError, match="its use changed during the measurement"):
            there.confirm({"before": state, "after": state})
        there.prepare()  # which asks again
        assert there.identity().use["power_mode"]["governors"] == ["powersave"]


def test_a_disk_that_fills_up_while_the_board_compiles_is_said(
    start_board: StartBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    board = start_board("--disk", "24m", "--python", sys.executable)  # which has onnx to read the model
    ssh_to(board)
    net, spec = segmenter()
    ballast = numpy_helper.from_array(np.zeros(12 * MB // 4, np.float32), "ballast")
    net.graph.initializer.append(ballast)
    onnx.save(net, str(tmp_path / "net.onnx"))
    arguments: CompileArguments = {
        "model": "net.onnx",
        "spec": spec.to_dict(),
        "precision": "fp32",
        "options": asdict(plugins.target("onnxruntime").options()),
        "calibration": None,
    }
    job = Job("compile", "onnxruntime", arguments)
    message = r"board board: no room in /home/board/.cache/edgekd: \d+\.\d MB free, the job needs more; make room"
    with executor(board) as there, pytest.raises(WorkspaceError, match=message):
        there.run_job(job, {"net.onnx": tmp_path / "net.onnx"}, tmp_path, tmp_path / "log.txt")
    assert board.run(f"ls {FOLDER}/in {FOLDER}/jobs").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]

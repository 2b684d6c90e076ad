"""The link to a board: refused, lost, frozen; no job is lost, and none is done twice."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.errors import BoardError
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

pytestmark = pytest.mark.slow
Know = Callable[..., None]
MB = 1_000_000


@pytest.fixture
def board(start_board: StartBoard, ssh_to: Know) -> SshdBoard:
    """A board of this test's own."""
    found = start_board()
    ssh_to(found)
    return found


def test_a_board_that_is_off_is_unreachable(board: SshdBoard, tmp_path: Path) -> None:
    board.down()
    with executor(board) as there, pytest.raises(BoardError, match="unreachable .*refused.; is it on. try: ssh board"):
        run(there, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("known_hosts", "", "its host key is unknown; check it and accept it once: ssh board"),
        ("known_hosts", "client key", "its host key has changed"),
        ("etc/authorized_keys", "", "it refuses your key; install it: ssh-copy-id board"),
    ],
)
def test_ssh_keys_that_do_not_fit_are_said_and_never_passed_over(
    file: str, content: str, message: str, board: SshdBoard, tmp_path: Path
) -> None:
    if content:
        place = (board.folder / "known_hosts").read_text().split()[0]
        content = f"{place} {' '.join((board.folder / 'key.pub').read_text().split()[:2])}\n"
    (board.folder / file).write_text(content)
    with executor(board) as there, pytest.raises(BoardError, match=message):
        run(there, tmp_path)


def test_a_host_without_shared_connections_does_the_same(board: SshdBoard, tmp_path: Path) -> None:
    limits = replace(LIMITS, link=replace(LIMITS.link, is_shared=False))
    data = tmp_path / "x"
    data.write_bytes(bytes(5 * MB))
    with executor(board, f"cp in/x out/x; {DONE}", limits) as there:
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()


def test_ten_cuts_in_a_push_lose_nothing_and_send_nothing_again(board: SshdBoard, tmp_path: Path) -> None:
    slow_down(board, 20 * MB)
    data = random_file(tmp_path / "x", 40 * MB)
    sizes: list[int] = []
    with executor(board, f"cp in/x out/x; {DONE}") as there, ThreadPoolExecutor() as pool:
        done = pool.submit(run, there, tmp_path, x=data)
        for count in range(1, 11):
            wait_until(lambda count=count: part_size(board) > count * 3 * MB)  # type: ignore[misc]
            board.cut()
            sizes.append(part_size(board))
        assert done.result() == {"done": True}
    assert sizes == sorted(sizes)
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()


def test_ten_cuts_in_a_job_do_not_disturb_it(board: SshdBoard, tmp_path: Path) -> None:
    with (
        executor(board, f"{RAN}; while [ ! -e ~/go ]; do sleep 0.1; done; {DONE}") as there,
        ThreadPoolExecutor() as pool,
    ):
        done = pool.submit(run, there, tmp_path)
        wait_until(lambda: (board.home / "runs").exists())
        for _ in range(10):
            wait_until(lambda: has_session(board))
            board.cut()
        (board.home / "go").touch()
        assert done.result() == {"done": True}
    assert (board.home / "runs").read_text() == "ran\n"


def test_ten_cuts_in_a_pull_lose_nothing_and_do_nothing_again(board: SshdBoard, tmp_path: Path) -> None:
    slow_down(board, 20 * MB)
    script = f"{RAN}; head -c 30000000 /dev/urandom >out/x; head -c 10000000 /dev/urandom >out/y; cp out/? ~; {DONE}"
    with executor(board, script) as there, ThreadPoolExecutor() as pool:
        done = pool.submit(run, there, tmp_path)
        for count in range(1, 11):
            wait_until(lambda count=count: pulled(tmp_path / "out") > count * 3 * MB)  # type: ignore[misc]
            board.cut()
        assert done.result() == {"done": True}
    for name in "xy":
        assert (tmp_path / "out" / name).read_bytes() == (board.home / name).read_bytes()
    assert (board.home / "runs").read_text() == "ran\n"
    assert sorted(os.listdir(tmp_path / "out")) == ["x", "y"]


@pytest.mark.parametrize("when", ["push", "job", "pull"])
def test_a_frozen_link_is_noticed_and_the_work_goes_on(
    when: str, board: SshdBoard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow_down(board, 20 * MB)
    data = random_file(tmp_path / "x", 10 * MB)
    begun: dict[str, Callable[[], bool]] = {
        "push": lambda: part_size(board) > MB,
        "job": lambda: (board.home / "runs").exists(),
        "pull": lambda: pulled(tmp_path / "out") > MB,
    }
    script = f"{RAN}; sleep 1; cp in/x out/x; {DONE}"
    with executor(board, script) as there, ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING):
        done = pool.submit(run, there, tmp_path, x=data)
        wait_until(begun[when])
        board.freeze()
        wait_until(lambda: any("no contact" in line for line in caplog.messages))
        board.thaw()
        assert done.result() == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()
    assert (board.home / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("when", ["job", "pull"])
def test_a_board_that_stays_away_is_given_up_and_the_next_run_collects_its_job(
    when: str, board: SshdBoard, tmp_path: Path
) -> None:
    slow_down(board, 20 * MB)
    limits = replace(LIMITS, link=replace(LIMITS.link, give_up_s=2))
    data = random_file(tmp_path / "x", 10 * MB)
    script = f"{RAN}; sleep 1; cp in/x out/x; {DONE}"
    is_begun = (board.home / "runs").exists if when == "job" else lambda: pulled(tmp_path / "out") > MB
    with executor(board, script, limits) as there, ThreadPoolExecutor() as pool:
        done = pool.submit(run, there, tmp_path, x=data)
        wait_until(is_begun)
        board.freeze()
        with pytest.raises(BoardError, match="no contact for 2 s .*; its job continues; run the command again to"):
            done.result()
        board.thaw()
    with executor(board, script) as there:
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()
    assert (board.home / "runs").read_text() == "ran\n"


@pytest.mark.parametrize("is_done_before", [False, True])
def test_a_job_whose_host_was_killed_is_collected_by_the_next_run(
    is_done_before: bool, board: SshdBoard, tmp_path: Path
) -> None:
    data = random_file(tmp_path / "x", 1000)
    script = f"{RAN}; while [ ! -e ~/go ]; do sleep 0.1; done; cp in/x out/x; {DONE}"
    with executor(board, script) as there, ThreadPoolExecutor() as pool:
        kill_host_in_job(board, tmp_path, data)
        if is_done_before:
            (board.home / "go").touch()
            wait_until(lambda: bool(list(board.home.glob(f"{FOLDER}/jobs/*/ended"))))
        done = pool.submit(run, there, tmp_path, x=data)
        (board.home / "go").touch()
        assert done.result() == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()
    assert (board.home / "runs").read_text() == "ran\n"
    assert not list(board.home.glob(f"{FOLDER}/jobs/*"))


def part_size(board: SshdBoard) -> int:
    """Return how much of a large file has come, 0 before and after."""
    sizes = [path.stat().st_size for path in board.home.glob(f"{FOLDER}/in/*") if len(path.name) == 64]
    return max(sizes, default=0)


def pulled(folder: Path) -> int:
    """Return how many bytes of a job's results are here."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.exists())


def has_session(board: SshdBoard) -> bool:
    """Return whether somebody is logged in."""
    return "sshd: board" in board.status()

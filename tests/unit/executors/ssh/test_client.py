"""The connection to a board: what `ssh` is told, and when a board that is away is given up. `ssh` here is a small script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgekd.errors import BoardError
from edgekd.executors.ssh import client as client_module
from edgekd.executors.ssh.client import Client, Link


class Clock:
    """A clock that moves when somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(client_module, "time", clock)
    return clock


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Return a connection whose `ssh` writes its arguments to `said`, and fails as often as `cuts` says."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\nprintf "%s\\n" "$@" >said\nleft=$(cat cuts)\n'
        '[ "$left" = 0 ] || { echo $((left - 1)) >cuts; exit 255; }\necho edgekd-begins; echo done\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with closing(Client("pi", "pi", Link(retry_s=1, give_up_s=10, is_shared=False))) as client:
        yield client


def call(board: Client, folder: Path, cuts: int) -> str:
    (folder / "cuts").write_text(str(cuts))
    return board.insist(lambda: board.run("true"))


def test_a_board_is_given_up_by_the_time_since_a_call_failed(board: Client, clock: Clock, tmp_path: Path) -> None:
    assert call(board, tmp_path, cuts=0) == "done\n"
    clock.now += 1000  # a long transfer, whose connection is cut then
    assert call(board, tmp_path, cuts=10) == "done\n"  # 10 cuts, 10 s
    clock.now += 1000
    assert call(board, tmp_path, cuts=10) == "done\n"  # the time of the cuts before does not count
    with pytest.raises(BoardError, match="board pi: no contact for 10 s"):
        call(board, tmp_path, cuts=12)


def test_a_board_that_was_never_met_is_given_up_at_once(board: Client, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="board pi: unreachable"):
        call(board, tmp_path, cuts=1)
    assert clock.now == 0


def test_the_users_agent_and_display_are_not_forwarded(board: Client, tmp_path: Path) -> None:
    call(board, tmp_path, cuts=0)
    said = (tmp_path / "said").read_text().splitlines()
    assert {"-a", "-x"} <= set(said[: said.index("--")])


def test_a_board_that_gives_no_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 1000\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    message = "board pi: no answer within 1 s; its disk or its system may hang; try: ssh pi df"
    with (
        closing(Client("pi", "pi", Link(answer_s=1, is_shared=False))) as client,
        pytest.raises(BoardError, match=message),
    ):
        client.insist(lambda: client.run("true"))


def test_what_ssh_says_reaches_no_terminal_with_its_escape_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nprintf '\\033]0;title\\007no \\033[2Jway\\n' >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with (
        closing(Client("pi", "pi", Link(is_shared=False))) as client,
        pytest.raises(BoardError, match="board pi: unreachable .no way.; is it on"),
    ):
        client.insist(lambda: client.run("true"))

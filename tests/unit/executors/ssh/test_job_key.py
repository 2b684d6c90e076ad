"""The name of a job on a board: a job that reads files is collected only from the machine as it is now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.board.job import Job
from edgekd.core.inventory import Board
from edgekd.executors.base import Identity
from edgekd.executors.machine import Machine
from edgekd.executors.ssh.board import SshBoard

NOW: dict[str, Any] = {"hardware": {"cpu": "a"}, "use": {"power_mode": "15W"}, "runtimes": {"openvino": None}}
MEASURE = Job("measure", "onnxruntime")


class KnownBoard(SshBoard):
    """A board of which all is known that an order asks for, so that nothing is sent."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(Board(name="pi", ssh="pi"))
        self.__dict__["_machine"] = Machine(Identity(**{**NOW, **changes}), {})
        self.__dict__["_place"] = SimpleNamespace(folder="/edgekd")


def key_of(board: SshBoard, folder: Path) -> str:
    """Return the key of a job that reads one file."""
    (folder / "x").write_bytes(b"four")
    return board._order(MEASURE, {"x": folder / "x"}, folder)[0].key


@pytest.mark.parametrize(
    "change",
    [{"use": {"power_mode": "30W"}}, {"runtimes": {"openvino": "2025.1"}}, {"hardware": {"cpu": "b"}}],
)
def test_what_was_measured_in_another_state_of_the_board_is_another_job(change: dict[str, Any], tmp_path: Path) -> None:
    before = key_of(KnownBoard(), tmp_path)
    assert key_of(KnownBoard(), tmp_path) == before
    assert key_of(KnownBoard(**change), tmp_path) != before


def test_a_question_is_new_each_time_and_asks_no_other(tmp_path: Path) -> None:
    board = KnownBoard()
    del board.__dict__["_machine"]  # to ask it would take ssh
    first, second = (board._order(Job("facts", ""), {}, tmp_path)[0].key for _ in range(2))
    assert first != second

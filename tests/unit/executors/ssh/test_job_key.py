"""The name of a job on a board: a job that reads files is collected only from the machine as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.board.job import Job
from edgekd.core.inventory import Board
from edgekd.executors.base import Identity
from edgekd.executors.ssh.orders import Orders

NOW: dict[str, Any] = {"hardware": {"cpu": "a"}, "use": {"power_mode": "15W"}, "runtimes": {"openvino": None}}
MEASURE = Job("measure", "onnxruntime")


def orders(**changes: Any) -> Orders:
    """Return the orders for a board in a state."""
    return Orders(Board(name="pi", ssh="pi"), 10, 1 << 20, lambda: Identity(**{**NOW, **changes}))


def key_of(board: Orders, folder: Path) -> str:
    """Return the key of a job that reads one file."""
    (folder / "x").write_bytes(b"four")
    return board.prepare(MEASURE, {"x": folder / "x"}, folder).order.key


@pytest.mark.parametrize(
    "change",
    [{"use": {"power_mode": "30W"}}, {"runtimes": {"openvino": "2025.1"}}, {"hardware": {"cpu": "b"}}],
)
def test_what_was_measured_in_another_state_of_the_board_is_another_job(change: dict[str, Any], tmp_path: Path) -> None:
    before = key_of(orders(), tmp_path)
    assert key_of(orders(), tmp_path) == before
    assert key_of(orders(**change), tmp_path) != before


def test_a_question_is_new_each_time_and_asks_no_other(tmp_path: Path) -> None:
    def fail() -> Identity:
        raise AssertionError("a question needs no identity")

    board = Orders(Board(name="pi", ssh="pi"), 10, 1 << 20, fail)
    first, second = (board.prepare(Job("facts", ""), {}, tmp_path) for _ in range(2))
    assert first.order.key != second.order.key
    assert first.question == second.question != ""
    assert board.prepare(Job("version", "onnxruntime"), {}, tmp_path).question != first.question
    assert board.prepare(Job("probe", "onnxruntime"), {}, tmp_path).question == ""  # any other task does something

"""What must hold on a board before a measurement, and how long it is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.core.board_sections import Expects, Quiet
from edgekd.core.inventory import Board
from edgekd.errors import BoardError
from edgekd.executors.base import Identity
from edgekd.executors.board_state import disturbances, prepare, unmet
from edgekd.executors.machine import Machine

NO_MODE = Identity({}, {"power_mode": {}}, {})
MODE_2 = Identity({}, {"power_mode": {"nvpmodel": "pmode:0002"}}, {})
STRESS = {"busy_processes": [{"name": "stress", "cores": 0.9}, {"name": "apt", "cores": 0.2}]}
HOT = {"readings": {"temp_c/cpu": 71.5, "temp_c/gpu": None, "temp_c/aux": 40.0, "power_w/VDD_IN": 90.0}}


@pytest.mark.parametrize(
    ("expects", "identity", "state", "found"),
    [
        (Expects(), NO_MODE, {}, []),
        (Expects(nvpmodel=2), MODE_2, {}, []),
        (Expects(nvpmodel=0), MODE_2, {}, ["power mode: expected 0, got pmode:0002"]),
        (Expects(nvpmodel=0), NO_MODE, {}, ["power mode: expected 0, got none that can be read"]),
        (Expects(clocks="locked"), NO_MODE, {"clocks_locked": True}, []),
        (
            Expects(clocks="locked"),
            NO_MODE,
            {"clocks_locked": False, "unlocked": ["cpu policy0: 0.6 to 1.5 GHz"]},
            ["clocks: expected locked, got cpu policy0: 0.6 to 1.5 GHz"],
        ),
        (
            Expects(clocks="locked"),
            NO_MODE,
            {"clocks_locked": None},
            ["clocks: expected locked, got no clock can be read"],
        ),
    ],
)
def test_expectations_are_compared_with_what_the_board_says(
    expects: Expects, identity: Identity, state: dict[str, Any], found: list[str]
) -> None:
    assert unmet(expects, identity, state) == found


def test_other_processes_and_heat_disturb_and_what_cannot_be_read_does_not() -> None:
    assert disturbances(Quiet(), {}) == []
    assert disturbances(Quiet(), STRESS) == ["other processes take stress 0.9, apt 0.2 cores, expected at most 0.3"]
    assert disturbances(Quiet(load=1.2), STRESS) == []
    assert disturbances(Quiet(), HOT) == ["cpu at 71.5 °C, expected at most 60"]
    assert disturbances(Quiet(celsius=80), HOT) == []


def board(**entry: object) -> Board:
    return Board.model_validate({"name": "pi", "ssh": "pi", **entry})


def answers(*states: dict[str, Any]) -> Any:
    """Return a function that gives one machine after another; asked too often it fails."""
    left = iter(states)
    return lambda: Machine(NO_MODE, {"state": next(left)})


def test_a_board_is_waited_for_until_it_is_quiet() -> None:
    assert prepare(board(), answers(STRESS, HOT, {}), pause_s=0) == []


def test_a_board_that_stays_loud_is_measured_with_a_warning() -> None:
    entry = board(quiet={"wait_s": 0})
    said = "the board was not quiet: other processes take stress 0.9, apt 0.2 cores, expected at most 0.3"
    assert prepare(entry, answers(STRESS)) == [said]


def test_a_board_that_is_set_otherwise_is_refused() -> None:
    with pytest.raises(BoardError, match="board pi: power mode: expected 0, got none .*edgekd board doctor pi"):
        prepare(board(expects={"nvpmodel": 0}), answers({}))

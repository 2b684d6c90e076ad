"""What must hold on a board before a measurement, and how long it is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.core.board_sections import Expects, Quiet
from edgekd.core.inventory import Board
from edgekd.errors import BoardAnswerError, BoardError
from edgekd.executors.base import Identity
from edgekd.executors.board_state import confirm, disturbances, prepare, unmet
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
    answer = answers(STRESS, HOT, {}, {})
    prepare(board(), answer, pause_s=0)
    answer()  # the last state is left


def test_a_board_that_stays_busy_is_waited_for_no_longer_than_the_inventory_says() -> None:
    prepare(board(quiet={"wait_s": 0}), answers(STRESS))


def test_a_board_that_is_set_otherwise_is_refused() -> None:
    with pytest.raises(BoardError, match="board pi: power mode: expected 0, got none .*edgekd board doctor pi"):
        prepare(board(expects={"nvpmodel": 0}), answers({}))


def measured(before: object, after: object, identity: Identity = NO_MODE, **entry: object) -> list[str]:
    """Return what disturbed a measurement of a board that was asked for in `NO_MODE`."""
    asked, after_it = Machine(NO_MODE, {"state": {}}), Machine(identity, {"state": {}})
    return confirm(board(**entry), asked, after_it, {"before": before, "after": after})


def test_what_a_measurement_itself_reports_disturbs_it() -> None:
    busy = "other processes take stress 0.9, apt 0.2 cores, expected at most 0.3"
    assert measured({}, {}) == []
    assert measured(STRESS, {}) == [f"the board was not quiet before the measurement: {busy}"]
    assert measured({}, STRESS) == [f"the board was not quiet after the measurement: {busy}"]
    assert measured({}, HOT) == []  # its own heat


@pytest.mark.parametrize(
    ("before", "after", "when"), [("locked", "free", "after"), ("free", "locked", "before"), ("free", "free", "before")]
)
def test_clocks_that_did_not_stay_locked_refuse_a_measurement(before: str, after: str, when: str) -> None:
    states = {"locked": {"clocks_locked": True}, "free": {"clocks_locked": False, "unlocked": ["gpu 300 to 900 MHz"]}}
    with pytest.raises(BoardError, match=f"{when} the measurement: clocks: expected locked, got gpu 300 to 900 MHz"):
        measured(states[before], states[after], expects={"clocks": "locked"})


def test_another_power_mode_after_a_measurement_refuses_it() -> None:
    with pytest.raises(BoardError, match="board pi: its use changed during the measurement; run the command again"):
        measured({}, {}, MODE_2)


@pytest.mark.parametrize("state", [None, {}, [], {"busy_processes": 3}, {"readings": {"temp_c/cpu": "hot"}}])
def test_a_state_that_is_none_is_an_error_of_the_board(state: Any) -> None:
    with pytest.raises(BoardAnswerError):
        confirm(board(), Machine(NO_MODE, {}), Machine(NO_MODE, {}), state)
    if state:
        with pytest.raises(BoardAnswerError, match="unexpected state"):
            measured(state, {})

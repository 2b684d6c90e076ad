"""Compares the state of a board with what its inventory expects before a measurement. Nothing is set."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from edgekd.board.sysinfo import Facts
from edgekd.core.board_sections import Expects, Quiet
from edgekd.core.inventory import Board
from edgekd.errors import BoardAnswerError, BoardError
from edgekd.executors.base import Identity
from edgekd.executors.logs import printable
from edgekd.executors.machine import Machine

log = logging.getLogger(__name__)
PAUSE_S = 5.0  # between two checks of a board that is not quiet; a check takes a second of one core


def prepare(board: Board, ask: Callable[[], Machine], pause_s: float = PAUSE_S) -> None:
    """Wait until a board is quiet, at most `quiet.wait_s`; `confirm` reports what still disturbs the measurement.

    Args:
        board: its entry in the inventory.
        ask: returns the machine as it is now.
        pause_s: pause between two checks.

    Raises:
        BoardError: the board does not have the power mode or the clocks that the inventory expects.
        BoardAnswerError: it describes no machine.
    """
    started, is_logged = time.monotonic(), False
    while True:
        machine = ask()
        _check(board, machine.identity, machine.facts["state"], "")
        disturbing = _disturbances(board, machine.facts["state"])
        left_s = started + board.quiet.wait_s - time.monotonic()
        if not disturbing or left_s <= 0:
            return
        if not is_logged:
            log.warning("board %s is not quiet (%s); waiting at most %.0f s", board.name, "; ".join(disturbing), left_s)
            is_logged = True
        time.sleep(min(pause_s, left_s))


def confirm(board: Board, before: Machine, after: Machine, state: object) -> list[str]:
    """Return the disturbances of a measurement, in words; a reboot or a long wait can change a board unseen.

    Args:
        board: its entry in the inventory.
        before: the machine that the measurement was asked for.
        after: the machine after it.
        state: what the measurement's job reports: the machine's state `before` and `after` its own work.

    Raises:
        BoardError: the board is not the one that was asked, or not as the inventory expects it.
        BoardAnswerError: the job reports no state.
    """
    if before.identity != after.identity:
        changed = [name for name, value in asdict(after.identity).items() if value != asdict(before.identity)[name]]
        raise BoardError(
            f"board {board.name}: its {' and '.join(changed)} changed during the measurement; run the command again"
        )
    if not isinstance(state, dict) or not all(isinstance(state.get(when), dict) for when in ("before", "after")):
        raise BoardAnswerError(
            f"board {board.name}: expected the state before and after a measurement, got {state!r:.200}"
        )
    for when in ("before", "after"):
        _check(board, after.identity, state[when], f"{when} the measurement: ")
    # Heat after a measurement is its own.
    computing = {"busy_processes": state["after"].get("busy_processes")}
    disturbing = {"before": _disturbances(board, state["before"]), "after": _disturbances(board, computing)}
    return [
        f"the board was not quiet {when} the measurement: {text}" for when in disturbing for text in disturbing[when]
    ]


def _check(board: Board, identity: Identity, state: Facts, when: str) -> None:
    """Raise BoardError where a board is not as its inventory expects."""
    with _understood(board):
        wrong = unmet(board.expects, identity, state)
    if wrong:
        raise BoardError(
            f"board {board.name}: {when}{'; '.join(wrong)}; see what to type: edgekd board doctor {board.name}; or change "
            "`expects` in the inventory"
        )


def _disturbances(board: Board, state: Facts) -> list[str]:
    with _understood(board):
        return [printable(text) for text in disturbances(board.quiet, state)]


@contextmanager
def _understood(board: Board) -> Iterator[None]:
    """Raise BoardAnswerError where a board's state has other values than a machine's."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise BoardAnswerError(f"board {board.name}: unexpected state ({exc!r:.200})") from exc


def unmet(expects: Expects, identity: Identity, state: Facts) -> list[str]:
    """Return the inventory's expectations that a board does not meet, in words; [] if it meets all.

    Args:
        expects: expectations of the inventory.
        identity: identity of the board; its power mode.
        state: `facts()["state"]` of the board.
    """
    found = []
    if expects.nvpmodel is not None:
        mode = printable(str(identity.use.get("power_mode", {}).get("nvpmodel") or ""))
        number = re.search(r"\d+$", mode)
        if number is None or int(number.group()) != expects.nvpmodel:
            found.append(f"power mode: expected {expects.nvpmodel}, got {mode or 'none that can be read'}")
    if expects.clocks == "locked" and not state.get("clocks_locked"):
        unlocked = ", ".join(state.get("unlocked") or ()) or "no clock can be read"
        found.append(f"clocks: expected locked, got {unlocked}")
    return found


def disturbances(quiet: Quiet, state: Facts) -> list[str]:
    """Return the present disturbances of a measurement on a board, in words; [] if it is quiet.

    The load average is left out: it holds what edgekd's own jobs did in the last minutes.
    """
    found = []
    busy, hottest = state.get("busy_processes") or (), hottest_zone(state)
    if sum(one["cores"] for one in busy) > quiet.load:
        names = ", ".join(f"{one['name']} {one['cores']:.1f}" for one in busy)
        found.append(f"other processes take {names} cores, expected at most {quiet.load:g}")
    if hottest is not None and hottest[1] > quiet.celsius:
        found.append(f"{hottest[0]} at {hottest[1]:.1f} °C, expected at most {quiet.celsius:g}")
    return found


def hottest_zone(state: Facts) -> tuple[str, float] | None:
    """Return the name and temperature (°C) of the hottest sensor; None where none can be read."""
    readings = state.get("readings") or {}
    zones = [(name.partition("/")[2], value) for name, value in readings.items() if name.startswith("temp_c/")]
    known = [(name, value) for name, value in zones if value is not None]
    return max(known, key=lambda zone: zone[1], default=None)

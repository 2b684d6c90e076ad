"""Compares the state of a board with what its inventory expects before a measurement. Nothing is set."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from edgekd.board.sysinfo import Facts
from edgekd.core.board_sections import Expects, Quiet
from edgekd.core.inventory import Board
from edgekd.errors import BoardError
from edgekd.executors.base import Identity
from edgekd.executors.machine import Machine

log = logging.getLogger(__name__)
PAUSE_S = 5.0  # between two looks at a board that is not quiet; a look takes a second of one core


def prepare(board: Board, ask: Callable[[], Machine], pause_s: float = PAUSE_S) -> list[str]:
    """Wait until a board is quiet, at most `quiet.wait_s`, and return what disturbs a measurement on it even then.

    Args:
        board: its entry in the inventory.
        ask: returns the machine as it is now.
        pause_s: between two looks.

    Raises:
        BoardError: the board does not have the power mode or the clocks that the inventory expects.
    """
    started, is_said = time.monotonic(), False
    while True:
        machine = ask()
        state = machine.facts["state"]
        if wrong := unmet(board.expects, machine.identity, state):
            raise BoardError(
                f"board {board.name}: {'; '.join(wrong)}; see what to type: edgekd board doctor {board.name}; or change "
                "`expects` in the inventory"
            )
        loud, left_s = disturbances(board.quiet, state), started + board.quiet.wait_s - time.monotonic()
        if not loud or left_s <= 0:
            return [f"the board was not quiet: {text}" for text in loud]
        if not is_said:
            log.warning("board %s is not quiet (%s); waiting at most %.0f s", board.name, "; ".join(loud), left_s)
            is_said = True
        time.sleep(min(pause_s, left_s))


def unmet(expects: Expects, identity: Identity, state: Facts) -> list[str]:
    """Return the expectations that a board does not meet, each in words; [] when it meets all.

    Args:
        expects: of the inventory.
        identity: of the board; its power mode.
        state: `facts()["state"]` of the board.
    """
    found = []
    if expects.nvpmodel is not None:
        said = str(identity.use.get("power_mode", {}).get("nvpmodel") or "")
        number = re.search(r"\d+$", said)
        if number is None or int(number.group()) != expects.nvpmodel:
            found.append(f"power mode: expected {expects.nvpmodel}, got {said or 'none that can be read'}")
    if expects.clocks == "locked" and not state.get("clocks_locked"):
        unlocked = ", ".join(state.get("unlocked") or ()) or "no clock can be read"
        found.append(f"clocks: expected locked, got {unlocked}")
    return found


def disturbances(quiet: Quiet, state: Facts) -> list[str]:
    """Return what disturbs a measurement on a board at this moment, each in words; [] when it is quiet.

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

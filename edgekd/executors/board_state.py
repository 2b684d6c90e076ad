"""Compares the state of a board with what its inventory expects before a measurement. Nothing is set."""

from __future__ import annotations

import re

from edgekd.board.sysinfo import Facts
from edgekd.core.inventory import Expects, Quiet
from edgekd.executors.base import Identity


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
    """Return what disturbs a measurement on a board at this moment, each in words; [] when it is quiet."""
    found = []
    load, hottest = (state.get("load_average") or [None])[0], hottest_zone(state)
    if load is not None and load > quiet.load:
        found.append(f"load {load:.2f} of the last minute, expected at most {quiet.load:g}")
    found += [f"{one['name']} takes {one['cores']:.1f} cores" for one in state.get("busy_processes") or ()]
    if hottest is not None and hottest[1] > quiet.celsius:
        found.append(f"{hottest[0]} at {hottest[1]:.1f} °C, expected at most {quiet.celsius:g}")
    return found


def hottest_zone(state: Facts) -> tuple[str, float] | None:
    """Return the name and temperature (°C) of the hottest sensor; None where none can be read."""
    readings = state.get("readings") or {}
    zones = [(name.partition("/")[2], value) for name, value in readings.items() if name.startswith("temp_c/")]
    known = [(name, value) for name, value in zones if value is not None]
    return max(known, key=lambda zone: zone[1], default=None)

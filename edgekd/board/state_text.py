"""State of a machine in words: names and texts for a terminal and for a table, each with its unit.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from edgekd.board.sensors.table import table

State = Mapping[str, Any]  # a `Snapshot` as JSON, maybe of an earlier edgekd: any key can be absent
# Quantity -> name in the text, unit, digits after the point.
_QUANTITIES = {
    "clock_mhz": ("clocks", "MHz", 0),
    "clock_limit_mhz": ("highest clocks allowed", "MHz", 0),
    "load": ("load of accelerators", "%", 0),
    "temp_c": ("temperatures", "°C", 1),
    "power_w": ("power", "W", 2),
    "energy_j": ("energy counters", "J", 0),
    "count": ("events since boot", "", 0),
}
_GIGA = 1e9


def described(state: State) -> Dict[str, str]:
    """Return name -> text of everything that a machine's state holds and that could be read."""
    texts = {title: _readings(state, quantity) for quantity, (title, _, _) in _QUANTITIES.items()}
    texts["clocks locked"] = _locked(state)
    texts["cooling on"] = (
        ", ".join(state["cooling_active"]) or "none" if state.get("cooling_active") is not None else ""
    )
    texts["firmware flags"] = _flags(state)
    texts["cooling begins at"] = _trip_points(state)
    texts["load average"] = " ".join(f"{one:.2f}" for one in state.get("load_average") or ())
    texts["other busy processes"] = ", ".join(
        f"{one['name']} ({one['cores']:.1f} cores)" for one in state.get("busy_processes") or ()
    )
    texts["memory available"] = _gigabytes(state.get("available_bytes"))
    texts["swapped out"] = _gigabytes(state.get("swap_used_bytes"))
    texts["free disk"] = _gigabytes(state.get("free_disk_bytes"))
    texts["up for"] = f"{state['uptime_s'] / 3600:.1f} h" if state.get("uptime_s") is not None else ""
    return {name: text for name, text in texts.items() if text}


def not_readable(state: State) -> List[str]:
    """Return a line for clocks, temperatures, power and events that cannot be read, and for each sensor that this user may not read.

    A machine with an energy counter counts as having power readings.
    """
    unreadable: Mapping[str, str] = state.get("unreadable") or {}
    has_energy = any(key.startswith("energy_j/") for key in state.get("readings") or ())
    shown = ("clock_mhz", "temp_c", *(() if has_energy else ("power_w",)), "count")
    lines = [f"{_QUANTITIES[quantity][0]}: {unreadable[quantity]}" for quantity in shown if quantity in unreadable]
    named = [key for key in unreadable if "/" in key or key == "debugfs" or " " in key]
    return lines + [f"{key}: {unreadable[key]}" for key in named]


def _readings(state: State, quantity: str) -> str:
    _, unit, digits = _QUANTITIES[quantity]
    factor = 100 if unit == "%" else 1
    values = {
        key.partition("/")[2]: value
        for key, value in (state.get("readings") or {}).items()
        if key.partition("/")[0] == quantity and value is not None
    }
    return ", ".join(f"{name} {factor * value:.{digits}f} {unit}".rstrip() for name, value in values.items())


def _locked(state: State) -> str:
    if state.get("clocks_locked") is None:
        return ""
    return "yes" if state["clocks_locked"] else f"no: {', '.join(state.get('unlocked') or ())}"


def _flags(state: State) -> str:
    texts = []
    for key, value in (state.get("readings") or {}).items():
        quantity, _, name = key.partition("/")
        if quantity == "flags" and value is not None:
            now = [text for bit, text in table().flags.items() if int(value) >> bit & 1]
            before = [f"{text} since boot" for bit, text in table().flags.items() if int(value) >> (bit + 16) & 1]
            texts.append(f"{name}: {', '.join([*now, *before]) or 'none'}")
    return "; ".join(texts)


def _trip_points(state: State) -> str:
    passive = [one for one in state.get("trip_points") or () if one["kind"] == "passive"]
    return ", ".join(f"{one['zone']} {one['temp_c']:.0f} °C" for one in passive)


def _gigabytes(count: Optional[int]) -> str:
    return "" if count is None else f"{count / _GIGA:.1f} GB"

"""The environment of a report as text: one sentence, and all facts as (name, text) pairs."""

from __future__ import annotations

from edgekd.report.model import BoardMachine, Report
from edgekd.report.part import Json
from edgekd.report.units import size


def environment_sentence(report: Report) -> str:
    """Return processor, memory, system and the main packages in one sentence; "" where nothing is recorded."""
    facts = report.environment
    parts = [str(facts[name]) for name in ("board_model", "cpu_model", "cpu") if facts.get(name)][:2]
    if cores := facts.get("usable_cores"):
        parts.append(f"{cores} cores")
    if memory := facts.get("memory_bytes"):
        parts.append(f"{size(memory)} memory")
    if facts.get("gpus"):
        parts.append(_gpus(facts["gpus"]))
    if facts.get("os"):
        parts.append(str(facts["os"]))
    if facts.get("virtualized"):
        parts.append("in a virtual machine")
    packages = facts.get("packages") or {}
    named = dict.fromkeys(["torch", *(row.target for row in report.rows)])  # runtimes that are packages of that name
    versions = [f"{name} {packages[name]}" for name in named if packages.get(name)]
    if facts.get("python"):
        versions.insert(0, f"Python {facts['python']}")
    if not parts:
        return ""
    return f"Made on {', '.join(parts)}" + (f", with {', '.join(versions)}." if versions else ".")


def machine_pairs(board: BoardMachine) -> list[tuple[str, str]]:
    """Return the facts of a board's machine; its runtimes are those that are installed."""
    runtimes = {name: version for name, version in board.runtimes.items() if version is not None}
    return flatten({**(board.environment or board.hardware), **board.use, "runtimes": runtimes})


def flatten(data: Json, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested data as (dotted key, text) pairs in order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, _text(value)))
    return pairs


def _text(value: object) -> str:
    if value is None:
        return "not readable"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _gpus(gpus: object) -> str:
    listed = gpus if isinstance(gpus, list) else [gpus]
    return " and ".join(str(one.get("name", one)) if isinstance(one, dict) else str(one) for one in listed)

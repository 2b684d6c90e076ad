"""Which machine, and whose runtimes: a run that is copied to a board is compiled (TensorRT) and measured there anew."""

from __future__ import annotations

from typing import Any

from edgekd.board.sysinfo import environment, power_mode
from edgekd.core.artifact import RUNTIMES, package_version
from edgekd.core.recipe import Recipe

# A virtual machine's memory comes and goes, and Python is not what is timed.
_NOT_TIMED = ("memory_bytes", "python")
# What this process may use of it does not decide whether an engine loads.
_OF_THE_PROCESS = ("affinity", "cpu_quota", "usable_cores")


def identity(_: Recipe) -> dict[str, Any]:
    """Return what a latency is true of: hardware, system, the cores this process may use, power mode, versions of the runtimes."""
    facts = {name: value for name, value in environment().items() if name not in _NOT_TIMED}
    return {**facts, "power_mode": power_mode(), "runtimes": {name: package_version(name) for name in RUNTIMES}}


def hardware() -> dict[str, Any]:
    """Return what an engine that belongs to a machine is compiled for."""
    left_out = (*_NOT_TIMED, *_OF_THE_PROCESS)
    return {name: value for name, value in environment().items() if name not in left_out}

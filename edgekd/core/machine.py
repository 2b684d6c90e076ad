"""Which machine, and whose runtimes: a run that is copied to a board is compiled (TensorRT) and measured there anew."""

from __future__ import annotations

from typing import Any

from edgekd.board.sysinfo import environment
from edgekd.core.artifact import RUNTIMES, package_version
from edgekd.core.recipe import Recipe

_NOT_ITS_IDENTITY = ("memory_bytes", "python")  # a virtual machine's memory comes and goes; Python is not what is timed


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return what a latency is true of: hardware, system, the cores this process may use, versions of the runtimes."""
    facts = {name: value for name, value in environment().items() if name not in _NOT_ITS_IDENTITY}
    return {**facts, "runtimes": runtimes(recipe)}


def runtimes(_: Recipe) -> dict[str, Any]:
    """Return the versions of the runtimes that are installed, None of the others."""
    return {name: package_version(name) for name in RUNTIMES}

"""Facts of the machine that this process runs on, with those that targets add; the same function here and on a board.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Dict, Iterable, Optional, TypedDict

from edgekd.board import state, sysinfo
from edgekd.board.state import Snapshot
from edgekd.board.sysinfo import Facts

# Left out: a virtual machine's memory changes while it runs, and Python itself is not timed.
_NOT_TIMED = ("memory_bytes", "python")
# They do not decide whether an engine loads.
_OF_THE_PROCESS = ("affinity", "cpu_quota", "usable_cores")
# `/etc/machine-id` itself must not leave the machine (systemd, machine-id(5)): hashed with an application's salt.
_SALT = b"edgekd.machine/1:"


class MachineIdentity(TypedDict):
    """The machine that an engine or a latency belongs to (JSON); the keys are the fields of `executors.base.Identity`."""

    hardware: Facts
    use: Facts
    runtimes: Dict[str, Optional[str]]


class MachineFacts(TypedDict):
    """Hardware and system, and clocks, temperatures and load at this moment (JSON)."""

    environment: Facts
    state: Snapshot


def environment(targets: Iterable[Any], root: str = "/") -> Facts:
    """Return `sysinfo.environment` with the facts that targets (`targets.base.Target`) know of the machine, e.g. its GPUs."""
    facts = sysinfo.environment(root)
    for target in targets:
        if target.machine_facts is not None:
            facts.update(target.machine_facts(root))
    return facts


def power_mode(targets: Iterable[Any], root: str = "/") -> Facts:
    """Return `sysinfo.power_mode` with the settings that targets know of."""
    settings = sysinfo.power_mode(root)
    for target in targets:
        if target.power_mode is not None:
            settings.update(target.power_mode(root))
    return settings


def runtime_versions(targets: Iterable[Any]) -> Dict[str, Optional[str]]:
    """Return distribution -> version of every target's runtime, None for one that is not installed."""
    return {name: package_version(name) for target in targets for name in target.info.distributions}


def package_version(name: str) -> Optional[str]:
    """Return the installed version of a package, None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine_id(root: str = "/") -> Optional[str]:
    """Return a hash that tells this machine from others, None where the system has no id."""
    try:
        text = (Path(root) / "etc/machine-id").read_bytes().strip()
    except OSError:
        return None
    return hashlib.sha256(_SALT + text).hexdigest() if text else None


def identity(targets: Iterable[Any]) -> MachineIdentity:
    """Return the machine that engines and latencies of this process belong to."""
    targets = list(targets)
    facts = {name: value for name, value in environment(targets).items() if name not in _NOT_TIMED}
    hardware = {name: value for name, value in facts.items() if name not in _OF_THE_PROCESS}
    use = {name: facts.get(name) for name in _OF_THE_PROCESS}
    use.update(power_mode=power_mode(targets), machine_id=machine_id())
    return {"hardware": hardware, "use": use, "runtimes": runtime_versions(targets)}


def machine_facts(targets: Iterable[Any]) -> MachineFacts:
    """Return hardware, system, clocks and temperatures of this machine."""
    return {"environment": environment(targets), "state": state.snapshot()}

"""Facts of this machine: hardware, power mode and versions, with those that the targets add.

A run that is copied to a board is measured there again. Its engines are compiled there again when they belong to a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from edgekd.board import machine
from edgekd.board.machine import MachineFacts, MachineIdentity
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.targets.base import Target

# Packages that can change trained weights, exports or pictures, for every target.
_FRAMEWORKS = (
    *("torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch", "onnx", "onnxsim"),
    *("numpy", "pillow", "opencv-python-headless"),
)


def environment(root: str = "/") -> Facts:
    """Return `sysinfo.environment`, with the facts that targets know of the machine, e.g. its GPUs."""
    return machine.environment(_targets(), root)


def power_mode(root: str = "/") -> Facts:
    """Return `sysinfo.power_mode`, with the settings that targets know of."""
    return machine.power_mode(_targets(), root)


def identity() -> MachineIdentity:
    """Return the machine that engines and latencies of this process belong to."""
    return machine.identity(_targets())


def facts() -> MachineFacts:
    """Return hardware, system, clocks and temperatures of this machine."""
    return machine.machine_facts(list(_targets()))


@cache  # reads a file, hundreds of times in one run
def package_version(name: str) -> str | None:
    """Return the installed version of a package, None when it is not installed."""
    return machine.package_version(name)


def runtime_versions() -> dict[str, str | None]:
    """Return distribution -> version of every target's runtime, None for one that is not installed."""
    return machine.runtime_versions(_targets())


def _targets() -> Iterator[Target]:
    return (target for _, target in plugins.targets())


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a result."""
    names = [
        *_FRAMEWORKS,
        *(name for _, one in plugins.targets() for name in (*one.info.distributions, *one.info.tools)),
    ]
    found = {name: package_version(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}

"""Facts of this machine: hardware, power mode and versions, with those that the targets add.

A run that is copied to a board is measured there again. Its engines are compiled there again when they belong to a machine.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from edgekd.board import sysinfo
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins

# The packages that change what is learned, exported or drawn, whatever the target.
_FRAMEWORKS = (
    *("torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch", "onnx", "onnxsim"),
    *("numpy", "pillow", "opencv-python-headless"),
)


def environment(root: str = "/") -> Facts:
    """Return `sysinfo.environment`, with the facts that targets know of the machine, e.g. its GPUs."""
    facts = sysinfo.environment(root)
    for _, target in plugins.targets():
        if target.machine_facts is not None:
            facts.update(target.machine_facts(root))
    return facts


def power_mode(root: str = "/") -> Facts:
    """Return `sysinfo.power_mode`, with the settings that targets know of."""
    settings = sysinfo.power_mode(root)
    for _, target in plugins.targets():
        if target.power_mode is not None:
            settings.update(target.power_mode(root))
    return settings


@cache  # reads a file, hundreds of times in one run
def package_version(name: str) -> str | None:
    """Return the installed version of a package, None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def runtime_versions() -> dict[str, str | None]:
    """Return distribution -> version of every target's runtime, None for one that is not installed."""
    return {name: package_version(name) for _, target in plugins.targets() for name in target.info.distributions}


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a result."""
    names = [
        *_FRAMEWORKS,
        *(name for _, one in plugins.targets() for name in (*one.info.distributions, *one.info.tools)),
    ]
    found = {name: package_version(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}

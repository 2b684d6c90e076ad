"""Whether a bundle belongs on this machine: chip, hardware, and the version of the runtime.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Optional

from edgekd.board import machine
from edgekd.errors import BundleError
from edgekd.runner.engine import find_target
from edgekd.runner.manifest import Manifest
from edgekd.targets.base import Target, options_of


def check_fit(manifest: Manifest, chip: Optional[str]) -> str:
    """Return in words how a bundle fits this machine.

    Args:
        manifest: manifest of the bundle.
        chip: chip of this machine; None if unknown, and then not compared.

    Raises:
        BundleError: another chip, other hardware or another runtime version than the engine loads on, or no runtime at all.
    """
    if manifest.chip is not None and chip is not None and chip != manifest.chip:
        raise BundleError(f"the engine is for chip {manifest.chip}, this board is {chip}; build an engine for {chip}")
    target = find_target(manifest)
    versions = machine.runtime_versions([target])
    installed = {name: version for name, version in versions.items() if version is not None}
    if versions and not installed:
        wanted = " or ".join(f"{name} {manifest.runtime.get(name, '')}".strip() for name in versions)
        raise BundleError(f"target {manifest.target} needs {wanted} on the board; got none; install it there")
    try:
        bound = target.bound_to(options_of(target, manifest.options)) if target.bound_to else ""
    except (TypeError, ValueError) as exc:
        raise BundleError(f"options of target {manifest.target}: {exc}; use the edgekd that made the bundle") from exc
    if bound == "machine":
        _check_hardware(manifest, target)
    others = [
        f"{name} {installed.get(name, 'none')} (the engine: {version})"
        for name, version in manifest.runtime.items()
        if name in versions and installed.get(name) != version
    ]
    if others and bound:
        raise BundleError(
            f"the engine loads only in the runtime version that built it, this board has {', '.join(others)}; install that "
            "version, or build the engine for this one"
        )
    said = ", ".join(others or [f"{name} {version}" for name, version in installed.items()])
    return f"{chip or 'chip not compared'}; {said or 'no runtime package'}"


def _check_hardware(manifest: Manifest, target: Target) -> None:
    here = machine.identity([target])["hardware"]
    for key, wanted in sorted(manifest.machine.items()):
        if here.get(key) != wanted:
            raise BundleError(
                f"the engine loads only where {key} is {wanted!r}, here it is {here.get(key)!r}; build it on this board"
            )

"""Whether a bundle belongs on this machine: chip, hardware, and the version of the runtime.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from typing import Any, Optional

from edgekd.board import machine
from edgekd.errors import BundleError
from edgekd.runner.manifest import Manifest

_TARGET = re.compile(r"[a-z][a-z0-9_]*")


def check_fit(manifest: Manifest, chip: Optional[str]) -> str:
    """Return in words how a bundle fits this machine.

    Args:
        manifest: of the bundle.
        chip: of this machine, None where nobody knows; then it is not compared.

    Raises:
        BundleError: another chip, other hardware or another runtime version than the engine loads on, or no runtime at all.
    """
    if manifest.chip is not None and chip is not None and chip != manifest.chip:
        raise BundleError(f"the engine is for chip {manifest.chip}, this board is {chip}; make one for it")
    target = _target(manifest)
    versions = machine.runtime_versions([target])
    installed = {name: version for name, version in versions.items() if version is not None}
    if versions and not installed:
        wanted = " or ".join(f"{name} {manifest.runtime.get(name, '')}".strip() for name in versions)
        raise BundleError(f"target {manifest.target} needs {wanted} on the board; got none; install it there")
    bound = target.bound_to(_options(target, manifest)) if target.bound_to else ""
    if bound == "machine":
        _check_hardware(manifest, target)
    others = [
        f"{name} {installed.get(name, 'none')} (the engine: {version})"
        for name, version in manifest.runtime.items()
        if name in versions and installed.get(name) != version
    ]
    if others and bound:
        raise BundleError(
            f"the engine loads in no other runtime than its own, got {', '.join(others)}; build it for this one"
        )
    said = ", ".join(others or [f"{name} {version}" for name, version in installed.items()])
    return f"{chip or 'chip not compared'}; {said or 'no runtime package'}"


def _target(manifest: Manifest) -> Any:
    name, module = manifest.target, manifest.module
    if not module and not _TARGET.fullmatch(name):
        raise BundleError(f"target {name!r}: expected the name of a target")
    try:
        return importlib.import_module(module or f"edgekd.targets.{name}").TARGET
    except ImportError as exc:
        raise BundleError(
            f"target {name!r} is unknown to this edgekd ({exc}); use the version that made the bundle"
        ) from exc


def _options(target: Any, manifest: Manifest) -> Any:
    known = {one.name for one in fields(target.options)}
    if unknown := sorted(set(manifest.options) - known):
        raise BundleError(f"target {manifest.target} has no option {unknown[0]!r}; use the edgekd that made the bundle")
    values = {name: tuple(one) if isinstance(one, list) else one for name, one in manifest.options.items()}
    try:
        return target.options(**values)
    except (TypeError, ValueError) as exc:
        raise BundleError(f"options of target {manifest.target}: {exc}") from exc


def _check_hardware(manifest: Manifest, target: Any) -> None:
    here = machine.identity([target])["hardware"]
    for key, wanted in sorted(manifest.machine.items()):
        if here.get(key) != wanted:
            raise BundleError(
                f"the engine loads only where {key} is {wanted!r}, here it is {here.get(key)!r}; build it on this board"
            )

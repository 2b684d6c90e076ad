"""Plugins: the file name is the key. Listing names imports nothing; loading imports one module.

    names("targets")            -> ["onnxruntime", "openvino", ...]
    load("targets", "openvino") -> the module edgekd.targets.openvino

Third parties register modules through entry points of the group `edgekd.<kind>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from edgekd.errors import UserError, did_you_mean

KINDS = {
    "targets": "edgekd.targets",
    "formats": "edgekd.data.formats",
    "families": "edgekd.models.families",
    "methods": "edgekd.distill.methods",
    "quantizers": "edgekd.quantize.schemes",
}
_NOT_PLUGINS = {"base"}


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"edgekd.{kind}")}


def _own_names(kind: str) -> set[str]:
    package = importlib.import_module(KINDS[kind])
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return {name for name in found if not name.startswith("_")} - _NOT_PLUGINS


def names(kind: str) -> list[str]:
    """Return the sorted plugin names of a kind without importing any plugin."""
    return sorted(_own_names(kind) | set(_entry_points(kind)))


def load(kind: str, name: str) -> ModuleType:
    """Import and return one plugin module.

    Raises:
        UserError: no plugin of that kind has this name, or two claim it.
    """
    own, foreign = _own_names(kind), _entry_points(kind)
    if name in own and name in foreign:
        raise UserError(
            f"two {kind} are called {name!r}: edgekd's own and {foreign[name].value}; rename the entry point"
        )
    if name in own:
        return importlib.import_module(f"{KINDS[kind]}.{name}")
    if name in foreign:
        return foreign[name].load()
    raise UserError(f"no {kind[:-1]} is called {name!r}{did_you_mean(name, own | set(foreign))}")

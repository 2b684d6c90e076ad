"""Plugins: the file name is the key. Listing names imports nothing; loading imports one module.

    names("methods")         -> ["at", "bckd", ...]
    load("methods", "bckd")  -> the module edgekd.distill.methods.bckd
    target("mine")           -> the TARGET of the module or package that is registered as target `mine`

Third parties register modules through entry points of the group `edgekd.<kind>`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from edgekd.errors import UserError, did_you_mean
from edgekd.targets.base import Target

# Kind -> the package whose modules are its plugins.
KINDS = {
    "targets": "edgekd.targets",
    "formats": "edgekd.data.formats",
    "families": "edgekd.models.families",
    "methods": "edgekd.distill.methods",
    "quantizers": "edgekd.quantize.schemes",
    "rewrites": "edgekd.rewrites",
}
_NOT_PLUGINS = {"base", "graph"}
_SINGULAR = {"families": "family"}


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return _entry_points_on(kind, tuple(sys.path))


@cache  # a search of all installed packages, and one command asks a hundred times
def _entry_points_on(kind: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"edgekd.{kind}")}


def _own_names(kind: str) -> set[str]:
    package = importlib.import_module(KINDS[kind])
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return {name for name in found if not name.startswith("_")} - _NOT_PLUGINS


def names(kind: str) -> list[str]:
    """Return the sorted plugin names of a kind without importing any plugin."""
    return sorted(_own_names(kind) | set(_entry_points(kind)))


def foreign_module(kind: str, name: str) -> str:
    """Return the module of a plugin of another package, "" when it is edgekd's own or there is none of that name."""
    point = None if name in _own_names(kind) else _entry_points(kind).get(name)
    return point.module if point else ""


def load(kind: str, name: str) -> ModuleType:
    """Import and return one plugin module.

    Raises:
        UserError: no plugin of that kind has this name, two claim it, or it needs a package that is not installed.
    """
    own, foreign = _own_names(kind), _entry_points(kind)
    if name in own and name in foreign:
        raise UserError(
            f"two {kind} are called {name!r}: edgekd's own and {foreign[name].value}; rename the entry point"
        )
    noun = _SINGULAR.get(kind, kind.removesuffix("s"))
    if name not in own | set(foreign):
        raise UserError(f"no {noun} is called {name!r}{did_you_mean(name, own | set(foreign))}")
    with packages_of(f"{noun} {name!r}"):
        if name not in own:
            return foreign[name].load()
        return importlib.import_module(f"{KINDS[kind]}.{name}")


def target(name: str) -> Target:
    """Return a target by name; UserError as `load`, or when its module has no `TARGET`."""
    module = load("targets", name)
    found = vars(module).get("TARGET")
    if not isinstance(found, Target):
        raise UserError(f"target {name!r}: expected a Target as TARGET in {module.__name__}, got {found!r}")
    return found


def options_type(kind: str, name: str) -> type[Any]:
    """Return the dataclass of a plugin's own options; UserError as `load`."""
    return target(name).options if kind == "targets" else load(kind, name).Options


@contextmanager
def packages_of(what: str) -> Iterator[None]:
    """Say in one line which package is not installed when imports inside fail.

    Raises:
        UserError: `what` needs a package outside edgekd that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in ("", "edgekd"):
            raise
        raise UserError(
            f"{what} needs the package {missing!r}, which is not installed; "
            "`edgekd doctor` says what is missing and the command that installs it"
        ) from exc

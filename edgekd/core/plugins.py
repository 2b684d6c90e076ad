"""Plugins: the file name is the key. Listing names imports nothing; loading imports one module.

    names("methods")         -> ["at", "bckd", ...]
    load("methods", "bckd")  -> the module edgekd.distill.methods.bckd
    target("mine")           -> the TARGET of the module or package that is registered as target `mine`

Third parties register modules through entry points of the group `edgekd.<kind>`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd.core import user_code
from edgekd.errors import PackageError, UserError, did_you_mean
from edgekd.targets.base import Target

log = logging.getLogger(__name__)
# Kind -> the package whose modules are its plugins.
KINDS = {
    "targets": "edgekd.targets",
    "formats": "edgekd.data.formats",
    "families": "edgekd.models.families",
    "methods": "edgekd.distill.methods",
    "quantizers": "edgekd.quantize.schemes",
    "rankings": "edgekd.sensitivity.rankings",
    "rewrites": "edgekd.rewrites",
    "stacks": "edgekd.stacks",
    "launchers": "edgekd.study.launchers",
}
# Names that a plugin's module must define, by kind.
_NAMES = {
    "targets": ("TARGET",),
    "formats": ("Options", "TASKS"),
    "families": ("Options", "TASKS", "VARIANTS", "build"),
    "methods": ("Options", "TASKS", "Method"),
    "quantizers": ("Options", "SUFFIX", "KEEPS_FLOAT", "quantize"),
    "rankings": ("harm",),
    "rewrites": ("ERROR", "rewrite"),
    "stacks": ("TITLE", "TARGETS", "why_not", "write"),
    "launchers": ("Options", "TRAINS_TEACHER", "run_all"),
}
WITH_OPTIONS = ("targets", *(kind for kind, names in _NAMES.items() if "Options" in names))
_NOT_PLUGINS = {"base", "graph", "pairs"}
_SINGULAR = {"families": "family"}
TRAINED = ("families", "methods")  # their modules import torch, and boards do not need them


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return _registered(kind, tuple(sys.path))


@cache
def _registered(kind: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the entry points of a kind; the metadata of every package on the import path is read once."""
    return {point.name: point for point in entry_points(group=f"edgekd.{kind}")}


def _own_names(kind: str) -> set[str]:
    package = importlib.import_module(KINDS[kind])
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return {name for name in found if not name.startswith("_")} - _NOT_PLUGINS


def names(kind: str) -> list[str]:
    """Return the sorted plugin names of a kind without importing any plugin."""
    return sorted(_own_names(kind) | set(_entry_points(kind)))


def foreign_module(kind: str, name: str) -> str:
    """Return the module name of a third-party plugin, "" for edgekd's own and for an unknown name."""
    point = None if name in _own_names(kind) else _entry_points(kind).get(name)
    return point.module if point else ""


def load(kind: str, name: str) -> ModuleType:
    """Import and return one plugin module.

    Raises:
        UserError: no plugin of that kind has this name, two have it, it needs a package that is not installed, or its
            module lacks a part of a plugin.
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
        module = importlib.import_module(f"{KINDS[kind]}.{name}") if name in own else _imported(foreign[name], noun)
    if absent := [one for one in _NAMES[kind] if one not in vars(module)]:
        raise UserError(
            f"{noun} {name!r}: expected {', '.join(_NAMES[kind])} in {module.__name__}, got no {', '.join(absent)}"
        )
    return module


def _imported(point: EntryPoint, noun: str) -> ModuleType:
    user_code.remember(point.module)
    try:
        with user_code.blamed(f"{noun} {point.name!r} cannot be imported", kind=UserError):
            module: ModuleType = point.load()
    except UserError as exc:
        if isinstance(exc.__cause__, ModuleNotFoundError):
            raise exc.__cause__ from None  # `packages_of` names what to install
        raise
    return module


def target(name: str) -> Target:
    """Return a target by name; UserError as `load`, or when its module has no `TARGET`."""
    module = load("targets", name)
    found = vars(module).get("TARGET")
    if not isinstance(found, Target):
        raise UserError(f"target {name!r}: expected a Target as TARGET in {module.__name__}, got {found!r}")
    return found


def targets() -> Iterator[tuple[str, Target]]:
    """Yield name and record of every target that loads; `edgekd doctor` says why one does not."""
    for name in names("targets"):
        try:
            yield name, target(name)
        except Exception as exc:  # noqa: BLE001 - a plugin's own, which must not stop what needs the others
            log.debug("target %s does not load: %s", name, exc)


def options_type(kind: str, name: str) -> type[Any]:
    """Return the dataclass of a plugin's own options; UserError as `load`."""
    return target(name).options if kind == "targets" else load(kind, name).Options


def source_of(kind: str, name: str) -> str:
    """Return the source of a plugin's module without importing it, "" when there is none."""
    own = f"{KINDS[kind]}.{name}" if name in _own_names(kind) else ""
    found = find_module(own or foreign_module(kind, name))
    file = Path(found.origin) if found and found.origin else None
    return file.read_text(encoding="utf-8") if file is not None and file.is_file() else ""


def find_module(module: str) -> ModuleSpec | None:
    """Find a module as an import would, and last in the current folder, without importing the packages around it."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first) or PathFinder.find_spec(first, [str(Path.cwd())])
    except (ImportError, ValueError):
        return None
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{name}", list(spec.submodule_search_locations))
    return spec


@contextmanager
def packages_of(what: str) -> Iterator[None]:
    """Turn a failed import inside the block into one line that names the missing package.

    Raises:
        PackageError: `what` needs a package outside edgekd that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in ("", "edgekd"):
            raise
        raise PackageError(
            f"{what} needs the package {missing!r}, which is not installed; "
            "`edgekd doctor` says what is missing and the command that installs it"
        ) from exc

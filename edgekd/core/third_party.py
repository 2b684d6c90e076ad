"""The code that a recipe brings along: plugins of other packages, and networks by `package.module:function`."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from edgekd.board.files import sha256_of
from edgekd.core import plugins
from edgekd.core.recipe import Recipe


def sources(recipe: Recipe, reads: tuple[str, ...]) -> dict[str, str | None]:
    """Return the sha256 of the file of each such module that the sections name, None where it is not here.

    Nothing is imported. What a module imports in turn is not looked at.
    """
    named = {read.partition(":")[0] for read in reads}
    used: list[tuple[str, str]] = []
    variants: list[str] = []
    if "data" in named:
        used.append(("formats", recipe.data.format))
    for network in (one for name, one in (("teacher", recipe.teacher), ("student", recipe.student)) if name in named):
        used.append(("families", network.family))
        variants.append(network.variant)
    if "distill" in named:
        used += [("methods", name) for name in recipe.distill.methods]
    used += [("targets", engine.target) for engine in recipe.engines if f"engines:{engine.id}" in reads]
    modules = [plugins.foreign_module(kind, name) for kind, name in used]
    modules += [variant.partition(":")[0] for variant in variants if ":" in variant]
    return {module: _hash(module) for module in sorted(filter(None, modules))}


def _hash(module: str) -> str | None:
    spec = _spec(module)
    file = Path(spec.origin) if spec and spec.origin else None
    return sha256_of(file) if file and file.is_file() else None


def _spec(module: str) -> ModuleSpec | None:
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

"""Hashes of the third-party code that a recipe names: plugins of other packages, networks by `package.module:function`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekd.board.files import sha256_of
from edgekd.core import plugins
from edgekd.core.recipe import Recipe


def code_hashes(recipe: Recipe, sections: tuple[str, ...]) -> dict[str, str | None]:
    """Return module -> sha256 of its code for each third-party module in the sections; None if it is not installed.

    Nothing is imported. Modules that such a module imports are not covered.
    """
    named = {section.partition(":")[0] for section in sections}
    used: list[tuple[str, str]] = []
    variants: list[str] = []
    if "data" in named:
        used.append(("formats", recipe.data.format))
    for network in (one for name, one in (("teacher", recipe.teacher), ("student", recipe.student)) if name in named):
        used.append(("families", network.family))
        variants.append(network.variant)
    if "distill" in named:
        used += [("methods", name) for name in recipe.distill.methods]
    if "qat" in named and recipe.qat is not None:
        used += [("methods", name) for name in recipe.qat.methods]
    if "export" in named:
        used += [("rewrites", name) for name in recipe.export.rewrite]
    used += [("quantizers", one.rpartition("/")[2]) for one in sections if one.startswith("quantize:")]
    # Of the stages that quantize, those that also score hold a budget.
    if {"quantize", "evaluate"} <= named and recipe.quantize is not None and recipe.quantize.budget is not None:
        used.append(("rankings", recipe.quantize.budget.rank))
    used += [
        ("targets", engine.target)
        for engine in recipe.engines or ()
        if {"engines", f"engines:{engine.id}"} & {*sections}
    ]
    modules = [plugins.foreign_module(kind, name) for kind, name in used]
    modules += [variant.partition(":")[0] for variant in variants if ":" in variant]
    return {module: hash_of_code(module) for module in sorted(filter(None, modules))}


def hash_of_code(module: str) -> str | None:
    """Return the hash of a module's file, or of all Python files of a package; None if it is not installed."""
    spec = plugins.find_module(module)
    file = Path(spec.origin) if spec and spec.origin else None
    if file is None or not file.is_file():
        return None
    if file.name != "__init__.py":
        return sha256_of(file)
    hashes = [f"{path.relative_to(file.parent)} {sha256_of(path)}" for path in sorted(file.parent.rglob("*.py"))]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

"""The package as text: its modules, and which modules each of them imports, by reading the source."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "edgekd"


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, and whether it is imported when the importer is."""

    module: str
    line: int
    at_top: bool


@cache
def modules() -> dict[str, Path]:
    """Return dotted name -> file of every module of edgekd."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Return everything a module imports, in functions too; `from package import module` counts as the module.

    What stands in a function or under `if TYPE_CHECKING:` is not imported when the module is.
    """
    inside = {
        id(node)
        for function in ast.walk(tree(name))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    inside |= {
        id(node)
        for block in ast.walk(tree(name))
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, node)
            targets = [f"{base}.{a.name}" if f"{base}.{a.name}" in modules() else base for a in node.names]
        else:
            continue
        found += [Import(target, node.lineno, id(node) not in inside) for target in targets]
    return tuple(found)


def _base(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = modules()[name].name == "__init__.py"
    parents = name.split(".")[: len(name.split(".")) - node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


@cache
def loaded_with(name: str) -> frozenset[str]:
    """Return the modules, edgekd's and foreign, that importing a module imports as well, itself included."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in modules():
            waiting += [found.module for found in imports(module) if found.at_top]
            waiting += [module.rpartition(".")[0]] if "." in module else []
    return frozenset(seen)


def part(name: str) -> str:
    """Return the part of edgekd that a module belongs to: `edgekd.core.recipe` -> `core`; "" for `edgekd` itself."""
    return name.split(".")[1] if "." in name else ""

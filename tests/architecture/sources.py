"""The sources as text: modules of the package and of the tests, and which modules each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "edgekd"

TORCH = {"torch", "torchvision", "lightning", "pytorch_lightning", "timm", "segmentation_models_pytorch"}
FRAMEWORKS = {*TORCH, "onnx", "onnxruntime", "onnxsim", "onnxscript", "openvino", "nncf"}


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, and whether it is imported when the importer is."""

    module: str
    line: int
    at_top: bool


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of edgekd."""
    return _modules_in("edgekd")


@cache
def modules_of_tests() -> dict[str, Path]:
    """Dotted name -> file of every module of the tests."""
    return _modules_in("tests")


def _modules_in(folder: str) -> dict[str, Path]:
    found = {}
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _file(name: str) -> Path | None:
    return (modules_of_tests() if root(name) == "tests" else modules()).get(name)


@cache
def tree(name: str) -> ast.Module:
    """Syntax tree of a module."""
    file = _file(name)
    assert file is not None, name
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Every import of a module, those in functions included; `from package import module` counts as the module.

    An import in a function or under `if TYPE_CHECKING:` is not `at_top`: it does not run when the module is imported.
    """
    found = []
    for node, at_top in _import_statements(tree(name).body, True):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            base = _base(name, node)
            targets = [f"{base}.{a.name}" if _file(f"{base}.{a.name}") else base for a in node.names]
        found += [Import(target, node.lineno, at_top) for target in targets]
    return tuple(found)


def _import_statements(body: list[ast.stmt], at_top: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_top
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_typing = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for block in ("body", "orelse", "finalbody"):
            yield from _import_statements(getattr(node, block, []), at_top and not is_function and not is_typing)
        for part_of in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:  # of `try` and `match`
            yield from _import_statements(part_of.body, at_top and not is_function)


def _base(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = _file(name)
    is_package = file is not None and file.name == "__init__.py"
    parents = name.split(".")[: len(name.split(".")) - node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


@cache
def loaded_with(name: str) -> frozenset[str]:
    """Modules, ours and foreign, that importing a module imports, itself included."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if _file(module):
            waiting += [found.module for found in imports(module) if found.at_top]
        if "." in module:
            waiting.append(module.rpartition(".")[0])
    return frozenset(seen)


def part(name: str) -> str:
    """Part of edgekd that a module belongs to: `edgekd.core.recipe` -> `core`; "" for `edgekd` itself."""
    return name.split(".")[1] if "." in name else ""


def root(name: str) -> str:
    """Distribution-level name of a module: `torch.nn` -> `torch`."""
    return name.partition(".")[0]

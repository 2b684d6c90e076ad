"""What runs on boards: standard library and numpy only, Python 3.8 grammar and library."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.sources import PACKAGE, imports, loaded_with, modules, part, root, tree

PORTABLE_PARTS = ("", "errors", "board", "rewrites", "targets", "runner", "release", "worker_tasks", "worker")
PORTABLE = [name for name in modules() if part(name) in PORTABLE_PARTS]
BUILTIN_GENERICS = {"list", "dict", "tuple", "set", "frozenset", "type"}
# Names that the standard library got after Python 3.8.
NEWER = {
    *("removeprefix", "removesuffix", "bit_count", "is_relative_to", "with_stem", "hardlink_to", "pairwise", "batched"),
    *(
        "cache",
        "lcm",
        "nextafter",
        "ulp",
        "randbytes",
        "to_thread",
        "TopologicalSorter",
        "file_digest",
        "stdlib_module_names",
    ),
}
NEWER_KEYWORDS = {"dataclass": {"slots", "kw_only", "match_args"}, "zip": {"strict"}, "field": {"kw_only"}}


def test_a_portable_module_needs_only_the_standard_library_numpy_and_portable_modules() -> None:
    def is_allowed(module: str) -> bool:
        if root(module) == "edgekd":
            return part(module) in PORTABLE_PARTS
        return root(module) in {*sys.stdlib_module_names, "numpy"}

    at_top = [(name, one) for name in PORTABLE for one in imports(name) if one.at_top]
    assert [f"{name}:{one.line} imports {one.module}" for name, one in at_top if not is_allowed(one.module)] == []


def test_the_package_itself_imports_nothing_at_top_but_typing() -> None:
    assert {i.module for i in imports("edgekd") if i.at_top} <= {"__future__", "typing"}


def test_a_portable_module_is_python_3_8_grammar() -> None:
    wrong = []
    for name in PORTABLE:
        try:
            ast.parse(modules()[name].read_text(encoding="utf-8"), feature_version=(3, 8))
        except SyntaxError as exc:
            wrong.append(f"{name}:{exc.lineno} {exc.msg}")
    assert wrong == []


def test_a_portable_module_evaluates_no_newer_types() -> None:
    found = [(name, node) for name in PORTABLE for node in evaluated(name) if is_newer_type(name, node)]
    assert [f"{name}:{node.lineno} {ast.unparse(node)}" for name, node in found] == []


def test_a_portable_module_calls_nothing_that_python_3_8_lacks() -> None:
    used = [(name, node, word) for name in PORTABLE for node in ast.walk(tree(name)) for word in newer_names(node)]
    assert [f"{name}:{getattr(node, 'lineno', 0)} {word}" for name, node, word in used] == []


def newer_names(node: ast.AST) -> set[str]:
    """Names and keywords that a node uses and that Python 3.8 lacks."""
    if isinstance(node, ast.Attribute):
        return {node.attr} & NEWER
    if isinstance(node, ast.ImportFrom):
        return {alias.name for alias in node.names} & NEWER
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        is_of_dicts = any(isinstance(one, ast.Dict | ast.DictComp) for one in (node.left, node.right))
        return {"| of dicts"} if is_of_dicts else set()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return {str(keyword.arg) for keyword in node.keywords} & NEWER_KEYWORDS.get(node.func.id, set())
    return set()


def test_a_portable_module_leaves_annotations_unevaluated() -> None:
    with_code = [name for name in PORTABLE if tree(name).body]
    assert [name for name in with_code if "__future__" not in {one.module for one in imports(name)}] == []


def evaluated(name: str) -> Iterator[ast.expr]:
    """Yield every expression that runs, i.e. all but annotations."""
    waiting: list[ast.AST] = [tree(name)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.expr):
            yield node
        skipped = {id(getattr(node, field, None)) for field in ("annotation", "returns")}
        waiting += [child for child in ast.iter_child_nodes(node) if id(child) not in skipped]


def is_newer_type(name: str, node: ast.expr) -> bool:
    """Return whether an expression is `list[int]`, `Iterable[int]` from collections.abc, or `int | None`."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return node.value.id in BUILTIN_GENERICS | abstract_names(name)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (node.left, node.right)
        return any(
            (isinstance(side, ast.Constant) and side.value is None)
            or (isinstance(side, ast.Name) and side.id in BUILTIN_GENERICS | {"int", "float", "str", "bytes", "bool"})
            for side in sides
        )  # fmt: skip
    return False


def abstract_names(name: str) -> set[str]:
    """Return what a module imports from collections.abc."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ImportFrom) and node.module == "collections.abc"
        for alias in node.names
    }


def test_portable_modules_import_under_a_real_python_3_8() -> None:
    python = shutil.which("python3.8")
    if python is None:
        pytest.skip("no python3.8 here; the grammar is checked without it")
    probe = subprocess.run([python, "-c", "import numpy"], capture_output=True, text=True)
    needs_numpy = "" if probe.returncode == 0 else "numpy"
    if "pyenv" in probe.stderr:
        pytest.skip("python3.8 is a shim without a version behind it")
    names = [name for name in PORTABLE if not needs_numpy or not reaches_numpy(name)]
    assert names
    program = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([python, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ONLY_NUMPY = """
import importlib, sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {"numpy", "edgekd", *sys.stdlib_module_names}:
            raise ImportError(f"{name} is not on the board")
sys.meta_path.insert(0, Only())
try:
    import yaml
except ImportError as exc:
    assert "not on the board" in str(exc)
else:
    raise SystemExit("nothing is blocked")
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_portable_modules_import_where_there_is_only_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONLY_NUMPY, *PORTABLE], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def reaches_numpy(name: str) -> bool:
    """Return whether importing a module imports numpy."""
    return "numpy" in {root(module) for module in loaded_with(name)}

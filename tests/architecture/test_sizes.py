"""Limits on the size of files, functions and signatures. The lists of exceptions can only get shorter."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.sources import REPOSITORY

LINES, TEST_LINES, BODY_LINES, ARGUMENTS = 300, 400, 40, 6

# Files and functions over a limit. Add none: split instead. One that is within the limit has to be taken off.
LONG_FILES = {
    "docs/generate.py",
    "edgekd/core/recipe.py",
    "edgekd/data/class_lists.py",
    "edgekd/quantize/schemes/qdq.py",
    "edgekd/report/model.py",
    "edgekd/rewrites/graph.py",
    "edgekd/targets/onnxruntime/target.py",
    "edgekd/targets/openvino/target.py",
    "edgekd/targets/rknn/target.py",
    "edgekd/worker_tasks.py",
    "tests/unit/core/test_recipe.py",
    "tests/unit/data/test_formats_folder.py",
    "tests/unit/data/test_formats_tools.py",
    "tests/unit/models/test_python_family.py",
}
LONG_FUNCTIONS = {
    "benchmarks/side_by_side.py:main",
    "edgekd/export/decode.py:_suppress",
    "edgekd/planning/__init__.py:_training",
}
LONG_SIGNATURES = {
    "edgekd/data/loader.py:training_loader",
    "edgekd/evaluate/definitions.py:_average_precision",
    "edgekd/executors/processes.py:_supervise",
    "edgekd/executors/processes.py:run_worker",
    "edgekd/pipeline/__init__.py:run_stages",
}


def sources() -> Iterator[tuple[str, str]]:
    """Yield name and text of every Python file."""
    for folder in ("edgekd", "docs", "benchmarks", "tests"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield `file:name` and syntax tree of every function outside the tests."""
    for name, text in sources():
        if not name.startswith("tests/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    yield f"{name}:{node.name}", node


def body_lines(function: ast.FunctionDef) -> int:
    """Return the lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def arguments(function: ast.FunctionDef) -> int:
    """Return the number of arguments, without `self`."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_file_is_longer_than_the_limit() -> None:
    lines = {name: text.count("\n") for name, text in sources()}
    over = {name for name, count in lines.items() if count > (TEST_LINES if name.startswith("tests/") else LINES)}
    assert over == LONG_FILES


def test_no_function_is_longer_than_the_limit() -> None:
    assert {name for name, function in functions() if body_lines(function) > BODY_LINES} == LONG_FUNCTIONS


def test_no_function_has_more_arguments_than_the_limit() -> None:
    """Commands are exempt: typer makes an option of each argument."""
    over = {name for name, function in functions() if arguments(function) > ARGUMENTS}
    assert {name for name in over if not name.startswith("edgekd/cli/")} == LONG_SIGNATURES

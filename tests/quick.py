"""Plugin of `make quick`, the lane without frameworks: `python -m pytest -p tests.quick`.

It leaves out every test file that imports a framework, found by reading the sources, and skips a test that wants one
while it runs (a plugin of a recipe, for instance). Nothing is listed by hand.

A test that fails because an optional package is not installed is skipped, and says which: the lane needs the core and
pytest, and runs more with the extra `quick`.
"""

from __future__ import annotations

import importlib.machinery
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.architecture.sources import FRAMEWORKS, loaded_with, modules_of_tests, root

# Torchmetrics imports torch; `tests.command` starts a server that imports all of them.
NEEDS_FRAMEWORK = {*FRAMEWORKS, "torchmetrics", "tests.command"}
# Modules of the extras: the core runs without them.
OPTIONAL = {
    *NEEDS_FRAMEWORK,
    *(
        "cv2",
        "cyclonedx",
        "faster_coco_eval",
        "jinja2",
        "jsonschema",
        "matplotlib",
        "pycocotools",
        "ray",
        "safetensors",
    ),
    *("scipy", "submitit", "sympy", "tensorboard"),
}
_started = time.perf_counter()


def needs_framework(file: Path) -> bool:
    """Whether importing a test file, or a conftest.py above it, imports a framework."""
    names = [name for name, path in modules_of_tests().items() if path == file or _is_conftest_of(path, file)]
    return any({name, root(name)} & NEEDS_FRAMEWORK for found in names for name in loaded_with(found))


def _is_conftest_of(path: Path, file: Path) -> bool:
    return path.name == "conftest.py" and path.parent in file.parents


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_left_out = collection_path.suffix == ".py" and needs_framework(collection_path)
    return True if is_left_out else None


def pytest_configure() -> None:
    sys.meta_path.insert(0, _NoFramework())


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str:
    return f"{len(items)} tests need no framework; collected {time.perf_counter() - _started:.1f} s after the start"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    return _skipped(report, call, item.path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    return _skipped(report, getattr(report, "call", None), collector.path)


def _skipped(report: Any, call: pytest.CallInfo[Any] | None, path: Path) -> Any:
    if report.failed and call and call.excinfo and (name := absent_package(call.excinfo.value)):
        report.outcome = "skipped"
        report.longrepr = (str(path), 0, f"Skipped: needs the package {name}, which is not installed")
    return report


def absent_package(error: BaseException) -> str:
    """Return the optional package whose absence led to an error, "" when that is not the reason."""
    causes: list[BaseException] = [error]
    for cause in causes:
        name = root(cause.name or "") if isinstance(cause, ModuleNotFoundError) else ""
        if name in OPTIONAL and importlib.machinery.PathFinder.find_spec(name) is None:
            return name
        causes += [one for one in (cause.__cause__, cause.__context__) if one is not None and one not in causes]
    return ""


class _NoFramework(importlib.machinery.PathFinder):
    """Finds a framework, so that `find_spec` tells the truth, and skips the test that loads it."""

    def find_spec(  # type: ignore[override]
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in NEEDS_FRAMEWORK:
            return None
        spec = super().find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Skip()
        return spec


class _Skip:
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> NoReturn:
        pytest.skip(f"needs the framework {module.__name__}", allow_module_level=False)

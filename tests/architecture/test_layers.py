"""Who may import whom: docs/architecture.md, held by reading the source. New modules are covered by being there."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterable
from functools import cache

from tests.architecture.sources import FRAMEWORKS, TORCH, imports, loaded_with, modules, part, root, tree

# Lower never imports higher; parts on one line never import each other. A new part of edgekd takes its place here.
LAYERS = (
    ("errors",),
    ("board",),
    ("rewrites",),
    ("targets",),
    ("runner",),
    ("release",),
    ("worker_tasks",),
    ("worker",),
    ("core",),
    ("data", "executors"),
    ("models",),
    ("train",),
    ("distill",),
    ("quantize", "export", "compile", "bench", "evaluate"),
    ("sensitivity", "layers"),
    ("report", "preflight", "stacks"),
    ("planning",),
    ("pipeline",),
    ("study", "tuning", "bundle", "comparison"),
    ("deploy",),
    ("api", "doctor"),
    ("cli",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

TORCH_MAY_BE_IN = ("edgekd.models", "edgekd.train", "edgekd.distill", "edgekd.export", "edgekd.quantize.fake_quantizers",
                   "edgekd.quantize.qat", "edgekd.quantize.qat_stage", "edgekd.quantize.torch_operators",
                   "edgekd.data.loader", "edgekd.data.augment")  # fmt: skip
NO_FRAMEWORK = (
    "",
    "errors",
    "board",
    "rewrites",
    "targets",
    "runner",
    "release",
    "worker_tasks",
    "worker",
    "core",
    "report",
    "preflight",
    "stacks",
    "planning",
    "pipeline",
    "study",
    "tuning",
    "bundle",
    "comparison",
    "deploy",
    "api",
    "doctor",
    "cli",
)


def is_in(name: str, *places: str) -> bool:
    """Return whether a module is one of the places or inside one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_part_of_edgekd_has_a_layer() -> None:
    assert {part(name) for name in modules()} - {""} <= set(RANK)


def breaches(names: Iterable[str], is_wrong: Callable[[str, str], bool]) -> list[str]:
    """`importer:line imports module` for every import for which `is_wrong(importer, module)`."""
    return [
        f"{name}:{one.line} imports {one.module}"
        for name in names
        for one in imports(name)
        if is_wrong(name, one.module)
    ]


def modules_in(*parts: str) -> list[str]:
    return [name for name in modules() if part(name) in parts]


def test_a_module_imports_only_lower_layers_and_its_own_part() -> None:
    def is_not_lower(importer: str, module: str) -> bool:
        own, other = part(importer), part(module)
        return root(module) == "edgekd" and other not in ("", own) and RANK.get(other, -1) >= RANK[own]

    assert breaches(modules_in(*RANK), is_not_lower) == []


def test_every_import_of_edgekd_is_of_a_module_that_exists() -> None:
    assert breaches(modules(), lambda _, module: root(module) == "edgekd" and module not in modules()) == []


def test_torch_and_what_brings_it_stay_in_the_training_parts() -> None:
    others = [name for name in modules() if not is_in(name, *TORCH_MAY_BE_IN)]
    assert breaches(others, lambda _, module: root(module) in TORCH) == []


def test_compile_bench_and_evaluate_run_without_torch() -> None:
    names = modules_in("compile", "bench", "evaluate")
    assert [name for name in names if loads(name, TORCH)] == []
    assert breaches(names, lambda _, module: root(module) == "edgekd" and bool(loads(module, TORCH))) == []


def test_light_modules_load_no_framework() -> None:
    loaded = {name: loads(name, FRAMEWORKS) for name in modules_in(*NO_FRAMEWORK)}
    assert {name: found for name, found in loaded.items() if found} == {}


def loads(name: str, distributions: set[str]) -> set[str]:
    """Distributions among those given that importing a module imports."""
    return {root(module) for module in loaded_with(name)} & distributions


@cache
def function_references() -> list[tuple[str, str]]:
    """Return (module, text) for every text of the form `edgekd.module:function` in the sources, f-strings included."""
    found = []
    for name in modules():
        constants = {
            target.id: node.value.value
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        in_docstrings = {id(node.value) for node in ast.walk(tree(name)) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Constant) and id(node) not in in_docstrings:
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(v.value) if isinstance(v, ast.Constant) else str(constants.get(getattr(v.value, "id", ""), "?"))
                    for v in node.values
                    if isinstance(v, ast.Constant | ast.FormattedValue)
                )
            else:
                continue
            if isinstance(text, str) and text.startswith("edgekd.") and ":" in text and " " not in text:
                found.append((name, text))
    return found


def test_functions_named_by_text_exist() -> None:
    assert [
        f"{name} names {reference}" for name, reference in function_references() if not is_function(reference)
    ] == []


def is_function(reference: str) -> bool:
    """Whether `edgekd.module:function` names a function at the top of a module."""
    module, _, function = reference.partition(":")
    body = tree(module).body if module in modules() else []
    return function in {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_the_pipeline_names_its_stages_by_text() -> None:
    named = {part(reference.partition(":")[0]) for name, reference in function_references() if part(name) == "planning"}
    assert {"data", "train", "distill", "export", "quantize", "compile", "bench", "evaluate"} <= named


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    own = {name.rpartition(".")[2] for name in modules() if name.count(".") == 1}
    assert own & set(sys.stdlib_module_names) == set()


def test_the_plugin_kinds_are_packages_of_edgekd() -> None:
    kinds = importlib.import_module("edgekd.core.plugins").KINDS
    assert set(kinds.values()) <= set(modules())

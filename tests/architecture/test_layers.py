"""Who may import whom: docs/architecture.md, held by reading the source. New modules are covered by being there."""

from __future__ import annotations

import ast
import importlib
import importlib.util

import pytest

from tests.architecture.sources import imports, loaded_with, modules, part, tree

# Lower never imports higher; parts on one line never import each other. A new part of edgekd takes its place here.
LAYERS = (
    ("errors",),
    ("board",),
    ("rewrites",),
    ("targets",),
    ("worker",),
    ("core",),
    ("data", "executors"),
    ("models",),
    ("train",),
    ("distill",),
    ("quantize", "export", "compile", "bench", "evaluate"),
    ("report", "preflight"),
    ("planning",),
    ("pipeline",),
    ("study",),
    ("api", "doctor"),
    ("cli",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

TORCH = {"torch", "torchvision", "lightning", "pytorch_lightning", "timm", "segmentation_models_pytorch"}
TORCH_MAY_BE_IN = ("edgekd.models", "edgekd.train", "edgekd.distill", "edgekd.export", "edgekd.quantize.qat", "edgekd.data.loader",
                   "edgekd.data.augment")  # fmt: skip
NO_FRAMEWORK = (
    "",
    "errors",
    "board",
    "rewrites",
    "targets",
    "worker",
    "core",
    "report",
    "preflight",
    "planning",
    "pipeline",
    "study",
    "api",
    "doctor",
    "cli",
)
FRAMEWORKS = {*TORCH, "onnx", "onnxruntime", "onnxsim", "onnxscript", "openvino", "nncf"}


def is_in(name: str, *places: str) -> bool:
    """Return whether a module is one of the places or inside one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def root(name: str) -> str:
    """Return the distribution-level name of a module: `torch.nn` -> `torch`."""
    return name.partition(".")[0]


def test_every_part_of_edgekd_has_a_layer() -> None:
    assert {part(name) for name in modules()} - {""} <= set(RANK)


@pytest.mark.parametrize("name", [name for name in modules() if part(name)])
def test_a_module_imports_only_lower_layers_and_its_own_part(name: str) -> None:
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports(name)
        if root(found.module) == "edgekd"
        and part(found.module) not in ("", part(name))
        and RANK[part(found.module)] >= RANK[part(name)]
    ]
    assert not wrong


@pytest.mark.parametrize("name", modules())
def test_every_import_of_edgekd_is_of_a_module_that_exists(name: str) -> None:
    assert [i for i in imports(name) if root(i.module) == "edgekd" and i.module not in modules()] == []


@pytest.mark.parametrize("name", [name for name in modules() if not is_in(name, *TORCH_MAY_BE_IN)])
def test_torch_and_what_brings_it_stay_in_the_training_parts(name: str) -> None:
    assert [i for i in imports(name) if root(i.module) in TORCH] == []


@pytest.mark.parametrize("name", [name for name in modules() if part(name) in ("compile", "bench", "evaluate")])
def test_compile_bench_and_evaluate_run_without_torch(name: str) -> None:
    assert {root(module) for module in loaded_with(name)} & TORCH == set()
    used = {i.module for i in imports(name) if root(i.module) == "edgekd"}
    assert [module for module in used if {root(loaded) for loaded in loaded_with(module)} & TORCH] == []


@pytest.mark.parametrize("name", [name for name in modules() if part(name) in NO_FRAMEWORK])
def test_light_modules_load_no_framework(name: str) -> None:
    assert {root(module) for module in loaded_with(name)} & FRAMEWORKS == set()


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


@pytest.mark.parametrize(("name", "reference"), function_references())
def test_functions_named_by_text_exist(name: str, reference: str) -> None:
    module, _, function = reference.partition(":")
    assert module in modules(), f"{name} names {reference}"
    defined = {node.name for node in tree(module).body if isinstance(node, ast.FunctionDef)}
    assert function in defined


def test_the_pipeline_names_its_stages_by_text() -> None:
    named = {
        part(reference.partition(":")[0]) for name, reference in function_references() if name == "edgekd.planning"
    }
    assert {"data", "train", "distill", "export", "quantize", "compile", "bench", "evaluate"} <= named


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    import sys

    own = {name.rpartition(".")[2] for name in modules() if name.count(".") == 1}
    assert own & set(sys.stdlib_module_names) == set()


def test_the_plugin_kinds_are_packages_of_edgekd() -> None:
    kinds = importlib.import_module("edgekd.core.plugins").KINDS
    assert set(kinds.values()) <= set(modules())

"""Builders and parsers that can crash run in a child process: a crash is one line, and this process lives on."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core import plugins
from edgekd.errors import TargetError, ToolchainCrashError, ToolchainError
from edgekd.executors.builder import build, probe
from edgekd.targets.base import CompileRequest
from tests.command import edgekd
from tests.unit.core.test_plugins import register

SPEC = ModelSpec(
    "semantic", ("a", "b", "c"), 255, (TensorSpec("image", "float32", (1, 3, 32, 48), "image"),),
    (TensorSpec("logits", "float32", (1, 3, 8, 12), "logits"),), Preprocess((32, 48)),
)  # fmt: skip
CHILD = """
import os, sys
from dataclasses import replace
from tests.unit.executors import broken_target as broken
from tests.unit.executors.broken_target import Options
from edgekd.targets.base import Probe, Refusal

def probe(model, options):
    print("I asked", flush=True)
    getattr(broken, options.fault or "nothing")(None)
    return Probe(f"{sys.executable} {os.environ['MARK']}", (Refusal("n", "Conv", str(model)),))

TARGET = replace(broken.TARGET, info=replace(broken.INFO, compile_at="child"), probe=probe)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of the broken target as one that compiles in a child process, in a package of its own."""
    register(tmp_path / "site", "targets", "fragile", "fragile_target")
    (tmp_path / "site/fragile_target.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("MARK", "of the caller")
    return "fragile"


def request(name: str, folder: Path, fault: str) -> CompileRequest:
    out = folder / "out"
    out.mkdir()
    return CompileRequest(folder / "model.onnx", SPEC, "int8", out, plugins.target(name).options(fault=fault))


def test_a_child_builds_with_the_packages_and_the_environment_of_the_caller(child: str, tmp_path: Path) -> None:
    built = build(child, request(child, tmp_path, ""))
    assert built.result.engine.read_bytes() == b"engine"
    assert built.result.spec == SPEC
    assert built.runtime_version == "1.2.3"
    assert {"MARK", "HOME"} <= set(built.result.details["sees"])


def test_a_builder_that_crashes_is_one_line_with_the_end_of_its_log(child: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError) as caught:
        build(child, request(child, tmp_path, "segfault"))
    said = str(caught.value)
    assert said.startswith(
        "fragile compile: the toolchain crashed with SIGSEGV; the last of its log: 'I loading the model'"
    )
    assert "\n" not in said
    assert Path(said.rpartition("whole log: ")[2]).read_text() == "I loading the model\n"
    assert caught.value.exit_code == 2


def test_a_builder_that_refuses_keeps_its_error(child: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="broken: build failed with return code -1") as caught:
        build(child, request(child, tmp_path, "refuse"))
    assert not isinstance(caught.value, ToolchainError)


def test_a_probe_is_asked_in_the_child_and_its_crash_is_one_line(child: str, tmp_path: Path) -> None:
    options = plugins.target(child).options
    said = probe(child, tmp_path / "model.onnx", options())
    assert said.tool == f"{sys.executable} of the caller"
    assert (said.refusals[0].operator, said.refusals[0].reason) == ("Conv", str(tmp_path / "model.onnx"))
    with pytest.raises(
        ToolchainCrashError, match="fragile probe: the toolchain crashed with SIGSEGV.*'I asked'"
    ) as caught:
        probe(child, tmp_path / "model.onnx", options(fault="segfault"))
    assert Path(str(caught.value).rpartition("whole log: ")[2]).read_text() == "I asked\n"


def attention(folder: Path) -> Path:
    """Write a network with one Attention over 3-D inputs, whose build ends TensorRT-RTX 1.7.1 by SIGSEGV."""
    rng = np.random.default_rng(0)
    weights = {
        "patches": rng.standard_normal((16, 3, 4, 4)).astype(np.float32),
        "classes": rng.standard_normal((3, 16, 1, 1)).astype(np.float32),
        "flat": np.array([1, 16, 96]),
        "square": np.array([1, 16, 8, 12]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "patches"], ["x"], strides=[4, 4]),
        helper.make_node("Reshape", ["x", "flat"], ["tokens_last"]),
        helper.make_node("Transpose", ["tokens_last"], ["tokens"], perm=[0, 2, 1]),  # (1, 96, 16)
        helper.make_node("Attention", ["tokens"] * 3, ["mixed"], name="attention", q_num_heads=4, kv_num_heads=4),
        helper.make_node("Transpose", ["mixed"], ["mixed_last"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["mixed_last", "square"], ["y"]),
        helper.make_node("Conv", ["y", "classes"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.shape)
        for tensor in (*SPEC.inputs, *SPEC.outputs)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "attention", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_the_attention_that_crashes_tensorrt_rtx_is_one_line(tmp_path: Path) -> None:
    """When a new version builds it, the child process is still right for its next crash: choose that graph here."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    options = plugins.target("tensorrt_rtx").options()
    with pytest.raises(
        ToolchainCrashError, match="^tensorrt_rtx compile: the toolchain crashed with SIGSEGV; "
    ) as caught:
        build("tensorrt_rtx", CompileRequest(attention(tmp_path), SPEC, "fp32", tmp_path, options))
    assert "\n" not in str(caught.value)
    done = edgekd("check", str(tmp_path / "model.onnx"), "--target", "tensorrt_rtx", "--build")
    assert done.returncode == 1
    assert "built: no (tensorrt_rtx compile: the toolchain crashed with SIGSEGV" in done.stdout


@pytest.mark.parametrize(("fault", "is_kept"), [("", False), ("refuse", False), ("segfault", True)])
def test_asking_a_parser_leaves_its_log_when_it_crashed_and_nothing_else(
    child: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, is_kept: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with suppress(TargetError):
        probe(child, tmp_path / "model.onnx", plugins.target(child).options(fault=fault))
    assert [path.name for path in (tmp_path / "temporary").rglob("*.log")] == ["toolchain.log"] * is_kept
    assert bool(list((tmp_path / "temporary").iterdir())) == is_kept

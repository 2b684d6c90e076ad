"""Every executor is a place where a job can run; a job gives the same result in this process and in a child."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.job import Job, read_result, write_job
from edgekd.board.machine import machine_id
from edgekd.core import plugins
from edgekd.core.artifact import StageResult, publish
from edgekd.errors import ArtifactError, RecipeError
from edgekd.executors import boards, portable
from edgekd.executors.base import Executor
from edgekd.executors.child import Child
from edgekd.executors.local import Local
from edgekd.executors.machine import facts_job, machine_of
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.toolchain import ToolchainExecutor

HOOKS = ("run_job", "open_session", "identity", "facts")


@pytest.mark.parametrize("executor", [Local, Child, ToolchainExecutor, SshBoard])
def test_an_executor_has_the_methods_of_the_protocol_with_their_arguments(executor: type) -> None:
    for hook in HOOKS:
        wanted, found = (inspect.signature(getattr(one, hook)) for one in (Executor, executor))
        assert list(found.parameters) == list(wanted.parameters), hook


@pytest.mark.parametrize("executor", [Local(), Child()])
def test_a_job_gives_the_same_here_and_in_a_child(executor: Executor, tmp_path: Path) -> None:
    import onnxruntime

    value = executor.run_job(Job("version", "onnxruntime"), {}, tmp_path, tmp_path / "log.txt")
    assert value == {"runtime_version": onnxruntime.__version__}


def test_files_of_a_job_are_found_by_name_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_onnx: Path
) -> None:
    monkeypatch.chdir(make_onnx.parent)
    job = Job("probe", "onnxruntime", {"model": "net", "options": {}})
    for executor in (Local(), Child()):
        value = executor.run_job(job, {"net": Path(make_onnx.name)}, tmp_path, tmp_path / "log.txt")
        assert value["refusals"] in ((), [])


@pytest.fixture
def make_onnx(tmp_path: Path) -> Path:
    """Return an ONNX file of one operator."""
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", value[:1], value[1:])
    (tmp_path / "models").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(tmp_path / "models/net.onnx"))
    return tmp_path / "models/net.onnx"


def test_the_identity_keeps_what_a_process_uses_apart_from_the_machine() -> None:
    here = Local().identity()
    assert {"affinity", "cpu_quota", "usable_cores", "power_mode"} <= set(here.use)
    assert not set(here.hardware) & {"affinity", "usable_cores", "memory_bytes", "python"}
    assert here.hardware["cpu_model"] == Local().facts()["environment"]["cpu_model"]
    assert bool(here.runtimes["onnxruntime"]) == (find_spec("onnxruntime") is not None)


def test_a_process_that_has_only_the_portable_code_sees_the_machine_as_this_one_does(tmp_path: Path) -> None:
    job = facts_job()
    assert "edgekd.targets.onnxruntime" in job.arguments["modules"]  # type: ignore[operator]
    portable.copy_to(tmp_path / "code", [plugins.load("targets", "onnxruntime")])
    (tmp_path / "out").mkdir()
    write_job(replace(job, out_dir="out"), tmp_path)
    command = [sys.executable, "-m", "edgekd.worker", "job.json"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "code")}, check=True)
    value = read_result(tmp_path / "result.json").value
    assert value is not None
    there, here = machine_of(value), Local()
    assert there.identity == here.identity()
    assert there.facts["environment"] == here.facts()["environment"]


def test_a_machine_has_one_id_that_is_not_its_own_number(tmp_path: Path) -> None:
    assert machine_id(str(tmp_path)) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("")  # an image that was never booted
    assert machine_id(str(tmp_path)) is None
    (tmp_path / "etc/machine-id").write_text("00000000000000000000000000000001\n")
    # printf 'edgekd.machine/1:00000000000000000000000000000001' | sha256sum
    assert machine_id(str(tmp_path)) == "8d10ce13c558fd1c3ccf466d1a85e724ba287f8f923ce148b789e5a16c70160e"


def test_a_board_is_found_in_the_inventory_and_made_once_within_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boards.yaml").write_text("schema: edgekd.boards/1\nboards:\n  orin: {ssh: orin}\n")
    monkeypatch.setenv("EDGEKD_BOARDS", str(tmp_path / "boards.yaml"))
    assert isinstance(boards.executor_of("local"), Local)
    assert isinstance(boards.executor_of("orin"), SshBoard)
    assert boards.executor_of("orin") is not boards.executor_of("orin")
    with boards.connected():
        first = boards.executor_of("orin")
        with boards.connected():
            assert boards.executor_of("orin") is first
        assert boards.executor_of("orin") is first
    with pytest.raises(RecipeError, match="board 'pi' is not in .*boards.yaml"):
        boards.executor_of("pi")


def test_an_artifact_without_a_network_has_no_session(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    np.save(tmp_path / "work/x.npy", np.zeros(1))
    facts = {"kind": "dataset", "stage": "data", "key": "k", "inputs": {}}
    artifact = publish(tmp_path / "work", tmp_path / "data", facts, StageResult())
    with pytest.raises(ArtifactError, match="expected an artifact of kind checkpoint, onnx, engine, got dataset"):
        boards.open_session(artifact)

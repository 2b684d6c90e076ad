"""Each way in which a vendor's compiler fails is an error of its own: shown with real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.board.job import Job, Progress, write_job
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.errors import (
    TargetError,
    ToolchainCrashError,
    ToolchainError,
    ToolchainLogError,
    ToolchainTimeoutError,
    WorkspaceError,
)
from edgekd.executors import portable
from edgekd.executors.base import no_progress
from edgekd.executors.outcomes import TIMEOUT_VARIABLE
from edgekd.executors.processes import run_worker
from edgekd.executors.toolchain import isolated
from tests.unit.executors import broken_target

SPEC = ModelSpec(
    "semantic", ("a", "b"), 255, (TensorSpec("image", "float32", (1, 3, 4, 6), "image"),),
    (TensorSpec("logits", "float32", (1, 2, 4, 6), "logits"),), Preprocess((4, 6)),
)  # fmt: skip


def compile_with(fault: str, folder: Path, timeout_s: float = 60.0) -> dict[str, Any]:
    """Run the worker in this interpreter on a compile job that has the fault; the log is `toolchain.log`."""
    arguments = {
        "model": "model.onnx", "spec": SPEC.to_dict(), "precision": "int8",
        "options": {"fault": fault, "folder": str(folder)}, "calibration": None,
    }  # fmt: skip
    files = {"model.onnx": str(folder / "model.onnx")}
    return work(Job("compile", "broken", arguments, broken_target.__name__, files, str(folder)), folder, timeout_s)


def work(job: Job, folder: Path, timeout_s: float = 60.0, progress: Progress = no_progress) -> dict[str, Any]:
    place = folder / "job"
    place.mkdir()
    write_job(job, place)
    python = Path(sys.executable)
    environment = isolated(python, portable.copy_to(place / "code", [broken_target]))
    facts = replace(broken_target.TOOLCHAIN, timeout_s=timeout_s)
    return run_worker(python, place, environment, folder / "toolchain.log", facts, "broken compile", progress)


def test_a_job_that_works_gives_engine_contract_and_version(tmp_path: Path) -> None:
    value = compile_with("", tmp_path)
    assert (tmp_path / value["engine"]).read_bytes() == b"engine"
    assert ModelSpec.from_dict(value["spec"]) == SPEC
    assert value["runtime_version"] == "1.2.3"
    assert "I loading the model" in (tmp_path / "toolchain.log").read_text()


def test_the_child_sees_the_portable_code_and_not_the_python_path_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    assert "VIRTUAL_ENV" not in compile_with("", tmp_path)["details"]["sees"]
    assert not (tmp_path / "job/code/edgekd/core").exists()


@pytest.mark.parametrize(("fault", "name"), [("segfault", "SIGSEGV"), ("killed", "SIGKILL.*out of memory")])
def test_death_by_signal_is_a_crash_that_names_the_signal(fault: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ToolchainCrashError, match=f"broken compile: the toolchain crashed with {name}.*'I loading"
    ) as e:
        compile_with(fault, tmp_path)
    assert "\n" not in str(e.value)
    assert str(tmp_path / "toolchain.log") in str(e.value)


def test_a_crash_after_the_result_was_written_is_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError, match="crashed with SIGSEGV"):
        compile_with("crash_after_success", tmp_path)


def test_a_refusal_keeps_its_class_and_says_what_was_logged(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"return code -1; it logged: 'E RKNN: op GatherND is not supported'") as e:
        compile_with("refuse", tmp_path)
    assert not isinstance(e.value, ToolchainError)


def test_an_exception_of_the_vendor_is_a_crash_with_its_traceback_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError, match=r"RuntimeError in the toolchain: std::bad_alloc in tile 7"):
        compile_with("raise_something", tmp_path)
    assert "Traceback" in (tmp_path / "toolchain.log").read_text()


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_stop_takes_the_compiler_along(told: signal.Signals, tmp_path: Path) -> None:
    def stop_when_it_hangs() -> None:
        while not (tmp_path / "child").is_file() or not (tmp_path / "child").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), told)

    before = signal.signal(told, signal.SIG_DFL)  # the tests may run under nohup
    try:
        threading.Thread(target=stop_when_it_hangs, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            compile_with("hang", tmp_path)
        assert has_ended(int((tmp_path / "child").read_text()))
        assert signal.getsignal(told) is signal.SIG_DFL
    finally:
        signal.signal(told, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ended_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_result_that_is_no_json_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="its result is no JSON"):
        compile_with("no_json", tmp_path)


@pytest.mark.parametrize("seconds", ["soon", "nan", "-1", "0", "inf"])
def test_a_time_limit_that_is_none_is_refused(seconds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, seconds)
    with pytest.raises(ToolchainError, match="expected seconds, more than 0"):
        compile_with("", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "leave_a_child"])
def test_no_process_of_the_group_outlives_the_job(fault: str, tmp_path: Path) -> None:
    if fault == "hang":
        with pytest.raises(ToolchainTimeoutError, match="did not end within 5 s and was killed.*TIMEOUT_S"):
            compile_with(fault, tmp_path, timeout_s=5)
    else:
        compile_with(fault, tmp_path)
    assert has_ended(int((tmp_path / "child").read_text()))


def has_ended(pid: int) -> bool:
    """Wait until a process is gone or a zombie that somebody else has to collect."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_success_with_errors_in_the_log_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(ToolchainLogError, match="reported success, but logged 1 errors, the first: 'E RKNN: REGTASK"):
        compile_with("log_errors", tmp_path)


def test_garbage_on_stdout_does_no_harm(tmp_path: Path) -> None:
    assert compile_with("print_garbage", tmp_path)["engine"] == "engine.bin"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("exit_quietly", "ended with exit code 0 and without a result"),
        ("write_a_wrong_result", "left an unreadable result: .*not JSON"),
        ("write_half_a_result", "left an unreadable result: .*expected a value or a failure"),
    ],
)
def test_an_exit_code_of_0_without_a_whole_result_is_a_crash(fault: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainCrashError, match=text):
        compile_with(fault, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_for_the_toolchain_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="No space left on device.*make room"):
        compile_with("fill_the_disk", tmp_path)


def test_a_disk_too_full_for_the_result_is_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True).returncode
    ):
        pytest.skip("a small disk cannot be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(1 << 20))
        with pytest.raises(WorkspaceError, match="No space left on device; make room"):
            compile_with("exit_quietly", disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_job_of_inference_writes_one_file_of_outputs_per_file_of_inputs(tmp_path: Path) -> None:
    names = [f"{i}.npz" for i in range(2)]
    for i, name in enumerate(names):
        np.savez(tmp_path / name, image=np.full((1, 2), i, np.float32))
    (tmp_path / "out").mkdir()
    arguments = {
        "engine": "engine.bin", "spec": SPEC.to_dict(), "options": {}, "is_simulated": False, "inputs": names,
    }  # fmt: skip
    files = {name: str(tmp_path / name) for name in ("engine.bin", *names)}
    job = Job("infer", "broken", arguments, broken_target.__name__, files, str(tmp_path / "out"))
    said: list[tuple[str, float]] = []
    value = work(job, tmp_path, progress=lambda what, fraction: said.append((what, fraction)))
    assert said  # a reader that polls may miss one of the two
    assert set(said) <= {("running", 0.5), ("running", 1.0)}
    assert value == {"runtime": {"runtime": "broken"}, "outputs": ["00000.npz", "00001.npz"]}
    assert np.load(tmp_path / "out/00001.npz")["image"].tolist() == [[2.0, 2.0]]

"""A target that fails in the way that its option asks for; it stands for vendor compilers in the tests of the executor."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase, Target, TargetInfo, Toolchain

TOOLCHAIN = Toolchain((r"^E RKNN: ",), timeout_s=60.0)
INFO = TargetInfo(".bin", "toolchain", "vendor", ("int8",), "", toolchain=TOOLCHAIN)


@dataclass(frozen=True)
class Options:
    """What to do instead of compiling."""

    fault: str = ""
    folder: str = ""


def runtime_version() -> str:
    return "1.2.3"


def build_engine(request: CompileRequest) -> CompileResult:
    engine = request.out_dir / "engine.bin"
    print("I loading the model", flush=True)
    getattr(sys.modules[__name__], request.options.fault or "nothing")(request)
    engine.write_bytes(b"engine")
    loss = float("nan") if request.options.fault == "no_json" else 0.0
    return CompileResult(engine, request.spec, {"sees": sorted(os.environ), "loss": loss})


def no_json(request: CompileRequest) -> None:
    """Give a result that is no JSON, as `build_engine` says."""


def nothing(request: CompileRequest) -> None:
    pass


def segfault(request: CompileRequest) -> None:
    ctypes.string_at(0)


def killed(request: CompileRequest) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(request: CompileRequest) -> None:
    print("\x1b[31mE RKNN: op GatherND is not supported\x1b[0m", flush=True)
    raise TargetError("broken: build failed with return code -1")


def raise_something(request: CompileRequest) -> None:
    raise RuntimeError("std::bad_alloc\nin tile 7")


def hang(request: CompileRequest) -> None:
    """Wait for ever, with a child that does the same and has its number written down."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(request.options.folder, "child").write_text(str(child.pid))
    time.sleep(600)


def leave_a_child(request: CompileRequest) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(request.options.folder, "child").write_text(str(child.pid))


def log_errors(request: CompileRequest) -> None:
    print(
        "I building: 40%\rI building: 100%\rE RKNN: REGTASK: The bit width of field value exceeds the limit", flush=True
    )


def print_garbage(request: CompileRequest) -> None:
    os.write(1, bytes(range(256)) * 64)


def fill_the_disk(request: CompileRequest) -> None:
    with open("/dev/full", "wb") as file:
        file.write(b"x")


def exit_quietly(request: CompileRequest) -> None:
    os._exit(0)


def write_a_wrong_result(request: CompileRequest) -> None:
    Path("result.json").write_bytes(b"\xff\x00 not json")
    os._exit(0)


def write_half_a_result(request: CompileRequest) -> None:
    Path("result.json").write_text('{"schema": "edgekd.result/1", "value": null, "failure": null, "seconds": 1}')
    os._exit(0)


def crash_after_success(request: CompileRequest) -> None:
    import atexit

    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)


class Session(SessionBase):
    """Adds 1."""

    def _open(self) -> None:
        self.runtime = {"runtime": "broken"}

    def _infer(self, inputs):  # type: ignore[no-untyped-def]
        return {name: array + 1 for name, array in inputs.items()}


TARGET = Target(INFO, Options, Session, runtime_version, build_engine)

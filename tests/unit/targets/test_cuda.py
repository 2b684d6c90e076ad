"""The CUDA runtime where pip puts it, and what a session asks of it; stand-ins for CUDA and TensorRT are called here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import TargetError
from edgekd.targets._nvidia import cuda
from edgekd.targets._nvidia import session as plan_session
from edgekd.targets._nvidia.session import PlanSession

SPEC = ModelSpec(
    "semantic", ("a", "b"), 255, (TensorSpec("image", "float32", (1, 3, 2, 2), "image"),),
    (TensorSpec("logits", "float32", (1, 2, 2, 2), "logits"),), Preprocess((2, 2)),
)  # fmt: skip
IMAGE = {"image": np.zeros((1, 3, 2, 2), np.float32)}


class Library:
    """In place of libcudart: notes the calls; a call of which `failing` has the code fails."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.failing: dict[str, int] = {}
        self.is_full_after = 99

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.happened.append(name.removeprefix("cuda"))
            if name == "cudaMalloc":
                arguments[0]._obj.value = self.happened.count("Malloc")
                return 2 if self.happened.count("Malloc") > self.is_full_after else 0
            return self.failing.get(name, 0)

        return call


class Context:
    """In place of an execution context: says when it goes."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened

    def set_tensor_address(self, name: str, address: int) -> None:
        assert address > 0

    def execute_async_v3(self, stream: int) -> bool:
        self.happened.append("run")
        return True

    def __del__(self) -> None:
        self.happened.append("context gone")


class Trt:
    """In place of TensorRT's module, its runtime and the engine of SPEC."""

    __version__ = "10.0.0"
    TensorIOMode = SimpleNamespace(INPUT="input")
    num_io_tensors = 2

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, VERBOSE=4)

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.tensors = {one.name: one for one in (*SPEC.inputs, *SPEC.outputs)}
        self.has_room = True

    def Runtime(self, logger: Any) -> Trt:
        self.logger = logger
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> Trt:
        return self

    def create_execution_context(self) -> Context | None:
        if self.has_room:
            return Context(self.happened)
        self.logger.log(1, "Error Code 2: OutOfMemory\n(no further information)")
        return None

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> str:
        return self.tensors[name].dtype

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def nptype(self, dtype: str) -> str:
        return dtype


class Standing(PlanSession):
    """A session on the stand-ins."""

    product, target = "TensorRT", "tensorrt"
    trt: Trt

    def _module(self) -> Trt:
        return self.trt

    def _readable_plan(self) -> bytes:
        return b""

    def _prepare(self, runtime: Any, plan: bytes) -> None:
        self.runtime["engine_validity"] = "suboptimal"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library([])
    monkeypatch.setattr(cuda, "_cudart", lambda: library)
    monkeypatch.setattr(plan_session, "why_no_gpu", lambda: "")
    monkeypatch.setattr(plan_session, "device_facts", lambda: {"device": "GPU"})
    return library


@pytest.fixture
def session(library: Library) -> Standing:
    session = Standing(Path("engine.plan"), SPEC, None)
    session.trt = Trt(library.happened)
    return session


@pytest.mark.parametrize("package", ["cu13", "cuda_runtime"])
def test_the_runtime_of_nvidias_wheels_is_found(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "nvidia" / package / "lib" / "libcudart.so.13"

    def load(name: str) -> str:
        if name != str(library):
            raise OSError(name)
        return "the library"

    monkeypatch.setattr(cuda.ctypes, "CDLL", load)
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "none")])
    with pytest.raises(TargetError, match="libcudart, the CUDA runtime, is not there"):
        cuda._cudart()
    library.parent.mkdir(parents=True)
    library.touch()
    assert cuda._cudart() == "the library"


def test_a_run_is_two_copies_and_nothing_else_and_the_context_goes_before_its_buffers(
    session: Standing, library: Library
) -> None:
    with session:
        session.infer(IMAGE)
        assert session.runtime == {
            "runtime": "tensorrt", "version": "10.0.0", "threads": 1, "device": "GPU", "engine_validity": "suboptimal",
        }  # fmt: skip
    opened, run = ["StreamCreate", "Malloc", "Malloc"], ["MemcpyAsync", "run", "MemcpyAsync", "StreamSynchronize"]
    assert library.happened == [*opened, *run, "context gone", "Free", "Free", "StreamDestroy"]


def test_a_session_that_opens_half_way_gives_back_what_it_has(session: Standing, library: Library) -> None:
    library.is_full_after = 1
    with pytest.raises(TargetError, match="cudaMalloc failed with error 2"), session:
        pass
    assert library.happened == ["StreamCreate", "Malloc", "Malloc", "context gone", "Free", "StreamDestroy"]


def test_the_error_that_closing_repeats_is_the_first_one(
    session: Standing, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TargetError, match="cudaStreamSynchronize failed with error 700"), session:
        library.failing = dict.fromkeys(("cudaStreamSynchronize", "cudaFree", "cudaStreamDestroy"), 700)
        session.infer(IMAGE)
    assert library.happened[-3:] == ["Free", "Free", "StreamDestroy"]
    (record,) = caplog.records
    assert record.getMessage().startswith("engine.plan: after an error, closing it failed, too: CUDA: cudaFree failed")


def test_an_error_of_closing_alone_is_raised_after_everything_was_tried(session: Standing, library: Library) -> None:
    with pytest.raises(TargetError, match="cudaFree failed with error 1;"), session:
        library.failing = {"cudaFree": 1, "cudaStreamDestroy": 2}
    assert library.happened[-3:] == ["Free", "Free", "StreamDestroy"]


def test_no_room_for_an_execution_context_is_told_in_one_line(session: Standing, library: Library) -> None:
    session.trt.has_room = False
    with pytest.raises(TargetError) as caught, session:
        pass
    said = "engine.plan: TensorRT has no execution context: Error Code 2: OutOfMemory (no further information)"
    assert str(caught.value) == said
    assert library.happened == []

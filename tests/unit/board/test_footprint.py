"""Load time and memory in a process of its own, on a session that takes memory whose size is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.footprint import footprint_in_child, resident_bytes
from edgekd.board.job import Job
from edgekd.board.options import option
from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase, Target, TargetInfo
from tests.unit.core.fake_stages import SPEC

MIB = 1 << 20


@dataclass(frozen=True)
class Options:
    """What the session does."""

    mib: int = option(0, "Memory that loading takes, in MiB.")
    crashes: bool = option(False, "Loading ends the process.")


class Session(SessionBase):
    """Takes its memory for 50 ms while it loads."""

    options: Options

    def _open(self) -> None:
        if self.options.crashes:
            print("a vendor's last words", flush=True)
            raise SystemExit(7)
        taken = np.ones(self.options.mib * MIB, np.uint8)
        time.sleep(0.05)
        del taken

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {one.name: np.zeros(one.shape, one.dtype) for one in self.spec.outputs}


def build_engine(request: CompileRequest) -> CompileResult:
    raise AssertionError("nothing is built here")


TARGET = Target(TargetInfo(".bin", "host", "", ("fp32",), ""), Options, Session, lambda: "1", build_engine)


def job_of(folder: Path, **options: object) -> Job:
    np.save(folder / "image.npy", np.zeros((64, 96, 3), np.uint8))
    (folder / "engine").touch()
    engine = {"module": __name__, "engine": "engine", "spec": SPEC.to_dict(), "options": options}
    files = {"image": str(folder / "image.npy"), "engine": str(folder / "engine")}
    return Job("footprint", "", {"engine": engine, "image": "image"}, files=files)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_that_loading_takes_is_in_the_peak_and_not_in_the_base(tmp_path: Path) -> None:
    found = footprint_in_child(job_of(tmp_path, mib=200))
    assert found.base_bytes is not None
    assert found.peak_bytes is not None
    assert 195 * MIB <= found.peak_bytes - found.base_bytes < 300 * MIB  # loading frees a little of the base
    assert found.base_bytes < 200 * MIB
    assert found.load_ms >= 50


def test_a_crash_is_told_with_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="the process ended with 7: a vendor's last words"):
        footprint_in_child(job_of(tmp_path, crashes=True))


def test_resident_memory_is_read_from_the_kernels_text() -> None:
    text = "Name:\tpython\nVmPeak:\t  99 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n"
    assert resident_bytes("VmHWM", lambda: text) == 2 * MIB
    assert resident_bytes("VmRSS", lambda: text) == MIB
    assert resident_bytes("VmHWM", lambda: "Name:\tpython\n") is None


def test_without_proc_there_is_no_memory() -> None:
    def absent() -> str:
        raise FileNotFoundError

    assert resident_bytes("VmHWM", absent) is None

"""Load time and memory of an engine, measured in a new process that opens and runs it.

In the bench's process other engines and earlier work share the memory. So each engine gets a child process: a worker that
does the task `footprint`. Device memory (GPU, NPU) is not in the figures.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, Optional

import numpy as np

from edgekd.board.job import RESULT, Job, read_result, write_job
from edgekd.board.preprocess import prepare
from edgekd.board.session import Session
from edgekd.errors import EdgekdError, TargetError, one_line

RUNS = 5  # some runtimes allocate also in the second run
_TIMEOUT_S = 300
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """Load time and memory of one engine.

    load_ms: from the engine's file to a session that is ready, with the runtime's modules imported before.
    first_ms: the first run on a prepared image.
    base_bytes: resident memory (`VmRSS`) before loading: Python, numpy, edgekd's portable part and the runtime's modules.
    peak_bytes: highest resident memory (`VmHWM`) of the process from its start to the end of `RUNS` runs.
    Both memories are None where the system has no /proc/self/status.
    """

    load_ms: float
    first_ms: float
    base_bytes: Optional[int]
    peak_bytes: Optional[int]


def footprint(opened: "AbstractContextManager[Session]", image: np.ndarray) -> Footprint:
    """Open a session, run it and return its footprint; valid only in a process that did nothing else.

    Args:
        opened: the context manager of the session, whose runtime is imported already.
        image: uint8 (H, W, 3) RGB.
    """
    base = resident_bytes("VmRSS")
    began = time.perf_counter_ns()
    with opened as session:
        loaded = time.perf_counter_ns()
        inputs = {session.spec.inputs[0].name: prepare(image, session.spec.preprocess)}
        started = time.perf_counter_ns()
        session.infer(inputs)
        first = time.perf_counter_ns()
        for _ in range(RUNS - 1):
            session.infer(inputs)
        return Footprint((loaded - began) / 1e6, (first - started) / 1e6, base, resident_bytes("VmHWM"))


def footprint_in_child(job: Job) -> Footprint:
    """Do a job `footprint` in a child process of this Python and return its value.

    Raises:
        TargetError: the child has no result, with the end of what it printed.
    """
    with TemporaryDirectory(prefix="edgekd-footprint-") as folder:
        files = {name: os.path.abspath(path) for name, path in job.files.items()}  # the child works in another folder
        path = write_job(replace(job, files=files), Path(folder))
        command = [sys.executable, "-m", "edgekd.worker", str(path)]
        folders = [os.path.abspath(one) for one in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        try:
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as exc:
            raise TargetError(f"footprint: the process did not end in {_TIMEOUT_S} s") from exc
        except OSError as exc:
            raise TargetError(f"footprint: the process did not start: {one_line(exc)}") from exc
        try:
            result = read_result(Path(folder) / RESULT)
        except (OSError, EdgekdError) as exc:  # no result
            end = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
            raise TargetError(f"footprint: the process ended with {done.returncode}: {' '.join(end)}") from exc
    if result.value is None:
        raise TargetError(f"footprint: {result.failure.message if result.failure else 'no value'}")
    return Footprint(**result.value)


def resident_bytes(name: str, read: Callable[[], str] = _STATUS.read_text) -> Optional[int]:
    """Return `VmRSS` (resident memory) or `VmHWM` (its highest value) of this process; None where the system does not say.

    `ru_maxrss` is not used: on Linux a child starts with its parent's. Source: proc_pid_status(5), getrusage(2).
    """
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None

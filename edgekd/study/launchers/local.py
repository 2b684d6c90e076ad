"""Launcher `local`: the runs of a study as child processes of this machine, one or several at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from queue import SimpleQueue

from edgekd.board.options import option
from edgekd.board.sysinfo import usable_cores
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.core.ranks import LAUNCHER_VARIABLES
from edgekd.study.plan import StudyRun
from edgekd.study.preloaded import Preloaded
from edgekd.study.results import Result
from edgekd.study.work import Children, attempt

TRAINS_TEACHER = False


@dataclass(frozen=True)
class Options:
    """Options of the launcher `local`."""

    jobs: int = option(1, "Runs at a time. They share the CPU's cores, or take turns of the GPUs.")

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs: expected 1 or more, got {self.jobs}")


def run_all(runs: Sequence[StudyRun], options: Options, on_run: Callable[[StudyRun, Result], None]) -> None:
    """Do the runs, `jobs` at a time; a run that fails does not stop the others.

    Args:
        runs: those that are not finished.
        options: options of this launcher.
        on_run: called with every run when it has ended, with its artifacts or why it has none.
    """
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(options.jobs):
        places.put(place)
    preloaded = Preloaded(environment(0, options.jobs))
    children = Children(preloaded.start)

    def work(run: StudyRun) -> None:
        place = places.get()
        try:
            on_run(run, attempt(run, children, environment(place, options.jobs)))
        finally:
            places.put(place)

    with preloaded, ended_like_ctrl_c(), ThreadPoolExecutor(options.jobs) as pool:
        try:
            waiting = [pool.submit(work, run) for run in runs]
            for done in as_completed(waiting):
                done.result()
        except BaseException:  # an interrupt above all: nothing more is started, and no child is left behind
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise


def environment(place: int, jobs: int) -> dict[str, str]:
    """Return the environment variables of a child: its share of the cores, its GPU."""
    own = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}  # left by the teacher's
    if jobs > 1:
        own["OMP_NUM_THREADS"] = str(max(1, usable_cores() // jobs))
        if gpus := visible_gpus():
            own["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return own


def visible_gpus() -> list[str]:
    """Return the CUDA devices that this process may use, by index or UUID; not run on hardware."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return asked.stdout.split() if asked.returncode == 0 else []

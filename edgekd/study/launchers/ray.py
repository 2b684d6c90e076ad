"""Launcher `ray`: each run of a study is a task of a Ray cluster, packed by the CPUs and GPUs it needs. No folder is shared.

A task gets the recipe, the teacher's weights and the weights of a given student. It trains in a folder of its node, and sends the
run's folder back. A task whose node is lost is done again elsewhere. The data set and pretrained weights must lie under the same path
on every node, and the nodes need the same edgekd. Whoever reaches a Ray cluster can run code on it: keep it in a private network.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.core.recipe import Student, Teacher
from edgekd.errors import PackageError, UserError
from edgekd.study.plan import StudyRun
from edgekd.study.results import NoResult, Result
from edgekd.study.work import LOG, Children, attempt, ended

TRAINS_TEACHER = True
_POLL_S = 1.0


@dataclass(frozen=True)
class Options:
    """Options of the launcher `ray`."""

    address: str = option("auto", "Address of the cluster. `auto`: the one of this machine or of $RAY_ADDRESS.")
    cpus: float = option(1, "CPU cores of a run.")
    gpus: float = option(0, "GPUs of a run; 0.5 lets two runs share one.")
    jobs: int = option(1000, "Runs at a time, at most.")
    retries: int = option(3, "How often a run whose node was lost is done again.")

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or self.jobs < 1 or self.retries < 0:
            raise ValueError("expected cpus above 0, gpus and retries of 0 or more, jobs of 1 or more")


def run_all(runs: Sequence[StudyRun], options: Options, on_run: Callable[[StudyRun, Result], None]) -> None:
    """Do the runs as tasks and bring their folders here; an interrupt cancels the tasks.

    Args:
        runs: those that are not finished.
        options: options of this launcher.
        on_run: called with every run when its task has ended.

    Raises:
        PackageError: ray is not installed.
        UserError: the cluster cannot be reached.
    """
    ray = _connected(options)
    task = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=options.retries)(train)
    paths = {path for run in runs for path in _weights(run)}
    weights = {path: ray.put(Path(path).read_bytes()) for path in paths if path}
    left, tasks = list(runs), dict[Any, StudyRun]()
    with ended_like_ctrl_c():
        try:
            while left or tasks:
                while left and len(tasks) < options.jobs:
                    run = left.pop(0)
                    tasks[task.remote(run, *map(weights.get, _weights(run)))] = run
                ended, _ = ray.wait(list(tasks), timeout=_POLL_S)
                for one in ended:
                    run = tasks.pop(one)
                    on_run(run, _result(ray, one, run))
        except BaseException:
            for one in tasks:
                ray.cancel(one)
            raise


def train(run: StudyRun, teacher: bytes | None, student: bytes | None) -> bytes:
    """Do a run on a node and return its folder as a tar archive.

    Args:
        run: its folder is on the study's machine; the node uses another one, and continues there after a lost connection.
        teacher: the teacher's checkpoint file; None for the teacher's own run.
        student: the student's checkpoint file; None for a student that the run trains.
    """
    name = hashlib.sha256(str(run.folder).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd/ray" / name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = run.recipe
    for name, content in (("teacher", teacher), ("student", student)):
        if content is not None:
            network: Teacher | Student = getattr(recipe, name)
            assert network.checkpoint is not None  # it has this content
            checkpoint = folder / f"{name}{network.checkpoint.suffix}"
            checkpoint.write_bytes(content)
            recipe = recipe.model_copy(update={name: network.model_copy(update={"checkpoint": checkpoint})})
    here = replace(run, recipe=recipe, folder=folder / "run")
    children = Children()
    try:
        attempt(here, children, dict(os.environ))
    finally:
        children.stop()  # when Ray cancels the task
    return _packed(here.folder)


def _packed(folder: Path) -> bytes:
    """Return the artifacts of a run and its log; unfinished work stays on the node."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and path.name != "recipe.yaml":  # it has the node's paths
                tar.add(path, path.name)
    return archive.getvalue()


def _connected(options: Options) -> Any:
    try:
        import ray
    except ModuleNotFoundError as exc:
        raise PackageError(f"the launcher ray needs ray, which is not installed; {install('ray')}") from exc
    if not ray.is_initialized():
        try:
            ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as exc:
            raise UserError(
                f"no Ray cluster at {options.address!r}: start one on its nodes (ray start --head), or set study.options.address"
            ) from exc
    return ray


def _weights(run: StudyRun) -> tuple[str, str]:
    """Return the paths of the weights of teacher and student, "" for one that the run trains."""
    teacher, student = (
        "" if network.train is not None or network.checkpoint is None else str(network.checkpoint)
        for network in (run.recipe.teacher, run.recipe.student)
    )
    return teacher, student


def _result(ray: Any, task: Any, run: StudyRun) -> Result:
    """Unpack what a task sent, and return what came of its run."""
    try:
        archive = ray.get(task)
    except ray.exceptions.RayError as exc:
        reason = " ".join(str(exc).split())[:200]
        return NoResult("failed", f"Ray lost the run {run.arm}-seed{run.seed} on every node: {reason}")
    run.folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(run.folder, filter="data")
    with open(run.folder / LOG, "a", encoding="utf-8") as log:
        log.write(f"--- brought from a node of Ray to {socket.gethostname()}\n")
    return ended(run)

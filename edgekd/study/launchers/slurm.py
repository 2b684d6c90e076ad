"""Launcher `slurm`: each run of a study is a job of a Slurm cluster, through submitit. The folder is shared by all nodes.

A job that Slurm preempts, or whose time is up, stops its training (the checkpoint is kept) and is queued again. The new job
resumes the training. The teacher is also a job. Submitit's cluster `local` does the same on this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.core.interrupts import ended_like_ctrl_c
from edgekd.errors import PackageError
from edgekd.study.plan import StudyRun
from edgekd.study.results import NoResult, Result
from edgekd.study.work import LOG, Children, attempt, ended, finished

TRAINS_TEACHER = True
_POLL_S = 1.0
_STOP_S = 60.0  # longest wait for a training to stop; Slurm kills after its grace time


@dataclass(frozen=True)
class Options:
    """Options of the launcher `slurm`."""

    cluster: Literal["slurm", "local"] = option("slurm", "`slurm`, or `local` to try it on this machine.")
    minutes: int = option(24 * 60, "Time limit of a job. A run that needs more is queued again and goes on.")
    cpus: int = option(4, "CPU cores of a job.")
    gpus: int = option(0, "GPUs of a job.")
    memory_gb: int | None = option(None, "Memory of a job. `null`: the cluster's default.")
    partition: str | None = option(None, "Partition. `null`: the cluster's default.")
    account: str | None = option(None, "Account. `null`: the user's default.")
    qos: str | None = option(None, "Quality of service. `null`: the cluster's default.")
    jobs: int = option(64, "Jobs at a time.")
    requeues: int = option(20, "How often a job whose time is up is queued again.")

    def __post_init__(self) -> None:
        for name in ("minutes", "cpus", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")


class Job:
    """One run as a job: submitit calls it on the node, and `checkpoint` when the job is preempted or out of time."""

    def __init__(self, run: StudyRun) -> None:
        self.run = run
        self._children: Children | None = None

    def __call__(self) -> None:
        """Do the run; the outcome is in its folder."""
        self._children = Children()
        attempt(self.run, self._children, dict(os.environ))

    def checkpoint(self) -> Any:
        """Stop the training and return the job that resumes it."""
        from submitit.helpers import DelayedSubmission

        if self._children is not None:
            self._children.stop()
            self._children.wait(_STOP_S)
        return DelayedSubmission(Job(self.run))


def run_all(runs: Sequence[StudyRun], options: Options, on_run: Callable[[StudyRun, Result], None]) -> None:
    """Submit the runs as jobs and wait for them; an interrupt cancels the jobs, whose trainings keep their checkpoints.

    Args:
        runs: those that are not finished; all nodes see their folders under the same path.
        options: options of this launcher.
        on_run: called with every run when its job has ended.

    Raises:
        PackageError: submitit is not installed.
    """
    executor = _executor(runs, options)
    with ended_like_ctrl_c():
        jobs: list[tuple[StudyRun, Any]] = []
        try:
            left = list(runs)
            while left or jobs:
                while left and len(jobs) < options.jobs:
                    jobs.append((left[0], executor.submit(Job(left[0]))))
                    del left[0]
                ended = [(run, job) for run, job in jobs if job.done()]
                jobs = [one for one in jobs if one not in ended]
                for run, job in ended:
                    on_run(run, _result(run, job))
                if not ended:
                    time.sleep(_POLL_S)
        except BaseException:
            for _, job in jobs:
                job.cancel()
            raise


def _executor(runs: Sequence[StudyRun], options: Options) -> Any:
    try:
        import submitit
    except ModuleNotFoundError as exc:
        raise PackageError(f"the launcher slurm needs submitit, which is not installed; {install('slurm')}") from exc
    folder = runs[0].folder.parent / ".slurm"
    executor = submitit.AutoExecutor(folder, cluster=options.cluster, slurm_max_num_timeout=options.requeues)
    given: dict[str, Any] = {"slurm_partition": options.partition, "slurm_account": options.account}
    given |= {"slurm_qos": options.qos, "mem_gb": options.memory_gb}
    executor.update_parameters(
        name="edgekd", timeout_min=options.minutes, cpus_per_task=options.cpus, gpus_per_node=options.gpus,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    return executor


def _result(run: StudyRun, job: Any) -> Result:
    """Return the result of a run whose job has ended. A finished run counts, however its job ended."""
    if artifacts := finished(run):
        return artifacts
    if job.exception() is not None:  # killed, cancelled, or a fault of the node
        return NoResult(
            "failed", f"Slurm's job {job.job_id} ended without a result; see {job.paths.stderr} and {run.folder / LOG}"
        )
    return ended(run)

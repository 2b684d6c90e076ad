"""One training run by Lightning, resumable: the same data order, augmentation, schedule and record after a kill."""

from __future__ import annotations

import logging
import re
import resource
import signal
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import LayerSync

from edgekd.core.recipe import Data, Train, Trainer
from edgekd.data.base import DenseDataset
from edgekd.data.loader import CachedOutputs, StepBatches, training_loader
from edgekd.errors import EdgekdError, UserError
from edgekd.models.base import DenseModel
from edgekd.train.callbacks import DepthwiseInFloat32, StepRecord, Validation, Watchdog, ZeroLoss
from edgekd.train.loggers import named_loggers
from edgekd.train.module import DenseTask, Distiller
from edgekd.train.place import loader_processes, on_cpu, precision, trainer_arguments, trainer_errors
from edgekd.train.progress import TrainingProgress
from edgekd.train.resume import AveragedWeights, StepSeeds, WholeCheckpoints

RESUME = "resume"
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # Linux


@dataclass(frozen=True)
class FitJob:
    """One training run: student, data, budget, and the folder of its resume state and logs.

    validation: the split of the learning curve, scored every `budget.validate_every` steps.
    teacher_cache: the teacher's outputs by number of a fixed view; without it the teacher runs in every step.
    class_weights: (K,) weights of the task loss; without them every labelled pixel has weight 1.
    project: name of the recipe, for `trainer.loggers`.
    """

    title: str
    student: DenseModel
    distiller: Distiller | None
    dataset: DenseDataset
    data: Data
    budget: Train
    trainer: Trainer
    seed: int
    watchdog_ratio: float
    scratch: Path
    task: str = "semantic"
    validation: DenseDataset | None = None
    teacher_cache: CachedOutputs | None = None
    class_weights: torch.Tensor | None = None
    project: str = "edgekd"


class SharedBatchNorm(LayerSync):
    """Batch norms with statistics over all devices, by timm's conversion.

    Lightning uses torch's conversion, which drops the activation of timm's norms that end in one.
    """

    def apply(self, model: torch.nn.Module) -> torch.nn.Module:
        """Convert the norms of a network before it trains on several devices."""
        from timm.layers.norm_act import convert_sync_batchnorm  # seconds

        return convert_sync_batchnorm(model)

    def revert(self, model: torch.nn.Module) -> torch.nn.Module:
        """Do nothing: converted norms evaluate the same on one device, and their weights keep their names."""
        return model


class _StepData(L.LightningDataModule):
    """Data module whose loader starts at the trainer's step."""

    def __init__(self, job: FitJob, workers: int) -> None:
        super().__init__()
        self.job, self.workers = job, workers

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        world = self.trainer.world_size
        budget = self.job.budget
        if budget.batch_size % world:
            raise UserError(
                f"train.batch_size {budget.batch_size} is not divisible by {world} devices; change one of them"
            )
        batches = StepBatches(
            budget.steps, budget.batch_size, self.trainer.global_step, self.trainer.global_rank, world
        )
        job = self.job
        return training_loader(job.dataset, job.data, job.seed, batches, self.workers, job.teacher_cache, job.task)


def fit(job: FitJob) -> dict[str, Any]:
    """Train `job.student` in place and return the facts of the run (JSON): steps, seconds per step, record.

    The budget is in optimizer steps. With `ema` the student ends with the averaged weights.

    Raises:
        RecipeError: the section `trainer` names hardware that does not exist here.
        GateError: the watchdog stopped the run.
        KeyboardInterrupt: Ctrl+C or SIGTERM stopped the process.
    """
    L.seed_everything(job.seed, workers=False, verbose=False)
    task = DenseTask(job.student, job.budget, job.distiller, job.trainer.channels_last, job.task, job.class_weights)
    record = StepRecord(log_every=max(1, job.budget.steps // 200))
    zero_loss = ZeroLoss()
    averaged = AveragedWeights(decay=job.budget.ema) if job.budget.ema is not None else None
    every = job.budget.validate_every or 0
    validation = Validation(job.validation, job.task, job.data, every, averaged) if job.validation else None
    with _quiet(), trainer_errors(job.trainer):
        # The order matters: a step is timed before the averaging, and scored after it.
        trainer = _trainer(job, [callback for callback in (record, zero_loss, averaged, validation) if callback])
    facts = {"task": job.task, "seed": job.seed, **job.budget.model_dump(mode="json")}
    _reset_peak_memory(job.trainer)
    _run(trainer, task, job, facts)
    job.student.to("cpu").to(memory_format=torch.contiguous_format).eval()
    steps = [row["step"] for row in record.rows]
    assert steps == list(range(1, job.budget.steps + 1)), "the record of steps has a gap or a repeat"
    return {
        "steps": trainer.global_step,
        "batch_size": job.budget.batch_size,
        "class_weights": None if job.class_weights is None else job.class_weights.tolist(),
        "seconds_per_step": record.seconds / len(steps),
        "precision": trainer.precision,
        "device": str(trainer.strategy.root_device),
        "world_size": trainer.world_size,
        "teacher_answers": None if job.distiller is None else "kept" if job.teacher_cache else "live",
        "zero_loss_steps": zero_loss.count,
        "record": record.rows,
        "validation": validation.rows if validation else [],
        "peak_memory_bytes": _peak_memory(trainer.strategy.root_device),
    }


def _run(trainer: L.Trainer, task: DenseTask, job: FitJob, facts: dict[str, Any]) -> None:
    """Run the trainer to its end, from the resume checkpoint where there is one; errors as `fit`."""
    resume = job.scratch / f"{RESUME}.ckpt"
    workers = loader_processes(job.trainer)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with _quiet(), named_loggers(job.trainer, job.project, job.title, facts) as loggers:
            trainer.loggers = [*trainer.loggers, *loggers]
            # weights_only=False would run code; our own checkpoint holds tensors, numbers and strings only.
            trainer.fit(
                task, _StepData(job, workers), ckpt_path=str(resume) if resume.exists() else None, weights_only=True
            )
    except SystemExit as exc:
        # Lightning 2.6.6 exits with code 1 on Ctrl+C and ignores further ones; it exits with code 0 on SIGTERM.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from exc
    except EdgekdError as exc:
        if (plain := _without_worker_traceback(exc)) is exc:
            raise
        raise plain from exc


def _without_worker_traceback(error: EdgekdError) -> EdgekdError:
    """Return the error of a loader's worker without the traceback that torch writes into its message."""
    head, marker, message = str(error).rpartition(f"{type(error).__name__}: ")
    return type(error)(message.strip()) if marker and "Original Traceback" in head else error


def _trainer(job: FitJob, own: list[Callback]) -> L.Trainer:
    budget, settings = job.budget, job.trainer
    callbacks: list[Callback] = [StepSeeds(job.seed), *own, Watchdog(job.watchdog_ratio), DepthwiseInFloat32()]
    callbacks.append(
        ModelCheckpoint(
            dirpath=job.scratch,
            filename=RESUME,
            every_n_train_steps=budget.checkpoint_every,
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
    )
    callbacks.append(TrainingProgress(job.title, budget.steps))
    loggers = [cls(save_dir=job.scratch / "logs", name="", version="") for cls in (CSVLogger, TensorBoardLogger)]
    return L.Trainer(
        **trainer_arguments(settings),
        precision=precision(budget, settings), max_steps=budget.steps, max_epochs=-1, use_distributed_sampler=False,
        gradient_clip_val=budget.gradient_clip, callbacks=callbacks, logger=loggers,
        # Batch norms over all devices, as on one device, work on GPUs only.
        plugins=[WholeCheckpoints(), *([] if on_cpu(settings) else [SharedBatchNorm()])],
        log_every_n_steps=budget.steps, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=job.scratch,
    )  # fmt: skip


def _reset_peak_memory(settings: Trainer) -> None:
    """Reset the peak that `_peak_memory` reads to the present use, if the system supports it."""
    if not on_cpu(settings):
        torch.accelerator.reset_peak_memory_stats()
    elif _CLEAR_REFS.exists():
        with suppress(OSError):  # a container may mount it read-only
            _CLEAR_REFS.write_text("5")  # resets VmHWM (Linux, proc_pid_clear_refs(5))


def _peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: torch's allocations on a GPU, this process's resident set on the CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device)
    if found := re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text() if _STATUS.exists() else ""):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _quiet:
    """Silences Lightning's advice about loaders and devices during a fit; other warnings stay."""

    def __enter__(self) -> None:
        names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
        self._levels = {name: logging.getLogger(name).level for name in names}
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", module="lightning.*")

    def __exit__(self, *exc: Any) -> None:
        self._warnings.__exit__(*exc)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

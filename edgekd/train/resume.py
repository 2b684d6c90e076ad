"""Exact resuming: atomic checkpoints, seeds by step, averaged weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from edgekd.board.files import write_atomic
from edgekd.models.base import DenseModel
from edgekd.train.module import DenseTask


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill leaves the old file or the new one.

    Lightning 2.6.6 writes to the system's temporary folder and moves. On another file system that is a copy onto the old
    checkpoint, and a kill during it destroys both. Delete when Lightning's `_atomic_save` uses the same folder.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save `checkpoint` as the local file `path`."""
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        in_memory = io.BytesIO()  # torch reports a full disk as RuntimeError, a plain write as OSError
        torch.save(checkpoint, in_memory)
        write_atomic(final, in_memory.getbuffer())


class StepSeeds(Callback):
    """Seeds torch's generators before every step from (seed, step, rank): dropout resumes without saved state."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # 2: the training sequence has the streams 0 (order) and 1 (augmentation) of the same seed.
        words = [self.seed, 2, trainer.global_step, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))


class AveragedWeights(WeightAveraging):
    """Exponential averaging of all weights, by Lightning, on the device that trains.

    Two corrections of Lightning 2.6.6. It creates the average before it moves the network: the average stays on the CPU, and
    every step waits for a copy of all weights. A run that resumes after its last step skips `on_train_end` and would end with
    the weights of that step; `on_fit_end` hands over the average.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    @property
    def student(self) -> DenseModel:
        """The student with the averaged weights, during the run."""
        assert self._average_model is not None
        task = self._average_model.module
        assert isinstance(task, DenseTask)
        return task.student

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)

"""Progress of a training: one bar on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich import progress
from rich.console import Console

from edgekd.core.ranks import is_first_process

log = logging.getLogger(__name__)
LOG_EVERY_S = 60.0
DRAW_EVERY_S = 0.2


class TrainingProgress(Callback):
    """Shows stage, step, loss, seconds per step and the time left; says at which step a training resumes.

    Args:
        title: name of the stage.
        steps: number of optimizer steps of the whole training.
        console: where the bar is drawn; its lines are logged where that is no terminal.
    """

    def __init__(self, title: str, steps: int, console: Console | None = None) -> None:
        self.title, self.steps = title, steps
        self._console = console or Console(stderr=True)
        self._bar: progress.Progress | None = None
        self._start = (0, 0.0)  # step and time at which this process began
        self._shown_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step, now = trainer.global_step, time.monotonic()
        self._start, self._shown_at = (step, now), now
        if step:
            log.info("%s: resumed at step %d of %d", self.title, step, self.steps)
        if self._console.is_terminal and is_first_process():
            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("step {task.completed}/{task.total}{task.fields[text]}"),
            )
            self._bar = progress.Progress(*columns, console=self._console, auto_refresh=False, transient=True)
            self._bar.start()
            self._bar.add_task(self.title, total=self.steps, completed=step, text="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        if now - self._shown_at < (DRAW_EVERY_S if self._bar else LOG_EVERY_S) and step != self.steps:
            return
        self._shown_at = now
        first_step, first_time = self._start
        pace = (now - first_time) / max(1, step - first_step)
        loss, left = float(outputs["loss"]), time_text(pace * (self.steps - step))
        if self._bar is None:
            log.info("%s: step %d/%d, loss %.3f, %.2f s/step, %s left", self.title, step, self.steps, loss, pace, left)
            return
        text = f", loss {loss:.3f}, {pace:.2f} s/step, {left} left"
        self._bar.update(self._bar.task_ids[0], completed=step, text=text, refresh=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """End the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def time_text(seconds: float) -> str:
    """Return a time as `h:mm:ss`."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"

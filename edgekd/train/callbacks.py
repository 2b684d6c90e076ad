"""Lightning callbacks: step record, learning curve, watchdog, fast bf16 on CPUs."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.hooks import RemovableHandle
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision

from edgekd.board.masks import Masks
from edgekd.board.postprocess import Predictor
from edgekd.core.recipe import Data
from edgekd.data.base import IGNORE_INDEX, DenseDataset
from edgekd.errors import GateError
from edgekd.models.base import DenseModel
from edgekd.models.session import TorchSession, torch_spec
from edgekd.train.module import DenseTask
from edgekd.train.resume import AveragedWeights

log = logging.getLogger(__name__)
# Pixels. The learning curve scores masks of larger images thinned; the stage `evaluate` scores whole ones.
MAX_CURVE_SIDE = 1024


class DepthwiseInFloat32(Callback):
    """Applies `depthwise_in_float32` while a student or teacher trains under bf16 on a CPU."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.precision == "bf16-mixed" and pl_module.device.type == "cpu":
            self._hooks = depthwise_in_float32(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        while self._hooks:
            self._hooks.pop().remove()


def depthwise_in_float32(network: nn.Module) -> list[RemovableHandle]:
    """Run grouped convolutions in float32 while they train under bf16 autocast; return the hooks.

    oneDNN has no fast bf16 backward for most of them: with these hooks a training step of EfficientNet-Lite2 takes 0.65 of the
    time (`benchmarks/depthwise_bf16.py`). Their outputs are rounded to bf16, and the next layer reads half the bytes.
    """
    grouped = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    return [
        hook
        for module in grouped
        for hook in (
            module.register_forward_pre_hook(_leave_autocast), module.register_forward_hook(_enter_autocast)
        )
    ]  # fmt: skip


def _leave_autocast(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    if not module.training:
        return None
    torch.set_autocast_enabled("cpu", False)
    return (args[0].float(),)


def _enter_autocast(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    if not module.training:
        return output
    torch.set_autocast_enabled("cpu", True)
    return output.bfloat16()


class StepRecord(Callback):
    """Records (step, losses) of every optimizer step. The checkpoint holds it: a resumed run has no gap or repeat.

    `seconds` is the time of the steps, from batch to loss, without waiting for batches, validation and saving.
    """

    def __init__(self, log_every: int) -> None:
        self.log_every = log_every
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DenseTask)
        losses = pl_module.losses_of(outputs)  # also waits for the device
        row = {name: round(value, 6) for name, value in losses.items()}
        self.seconds += time.perf_counter() - self._started
        self.rows.append({"step": trainer.global_step, **row})
        if trainer.global_step % self.log_every == 0:
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]


class ZeroLoss(Callback):
    """Counts the steps whose task loss is exactly 0 (a batch without labels) in `count`, and warns at the first."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DenseTask)
        if pl_module.losses_of(outputs)["task"] != 0:
            return
        self.count += 1
        if self.count == 1:
            text = "step %d: the task loss is exactly 0: the batch has no label, so this step trains nothing"
            log.warning(text, trainer.global_step)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.count = state_dict["count"]


class Watchdog(Callback):
    """Stops a run whose loss is not finite, or whose distillation terms dominate the task loss.

    Raises:
        GateError: the loss is not finite; or the mean of the weighted distillation terms over the last `window` steps
            exceeds `ratio` times the mean task loss.
    """

    def __init__(self, ratio: float, window: int = 50) -> None:
        self.ratio = ratio
        self.recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=window)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DenseTask)
        step = trainer.global_step
        values = pl_module.losses_of(outputs)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise GateError(f"step {step}: {', '.join(bad)} is not finite; lower lr, or use precision 32-true")
        weighted = {
            # `step` is 1 after the first step; the schedule numbers that step 0.
            name: pl_module.weight_at(name.split(".")[0], step - 1) * value
            for name, value in values.items()
            if "." in name
        }
        self.recent.append((values["task"], weighted))
        if not weighted or len(self.recent) < (self.recent.maxlen or 0):
            return
        task = sum(t for t, _ in self.recent)
        terms = {name: sum(w[name] for _, w in self.recent) for name in weighted}
        if sum(terms.values()) > self.ratio * task:
            largest = max(terms, key=terms.__getitem__)
            times = sum(terms.values()) / max(task, 1e-12)
            raise GateError(
                f"step {step}: the weighted distillation terms are {times:.1f} times the task loss "
                f"(limit distill.watchdog_ratio = {self.ratio:g}), most of it {largest}; "
                f"lower distill.methods.{largest.split('.')[0]}.weight"
            )

    def state_dict(self) -> dict[str, list[tuple[float, dict[str, float]]]]:
        return {"recent": list(self.recent)}

    def load_state_dict(self, state_dict: dict[str, list[tuple[float, dict[str, float]]]]) -> None:
        self.recent.extend(state_dict["recent"])


class Validation(Callback):
    """Scores the student on the scored split every `every` steps. The scores are recorded, and no checkpoint is selected by them.

    `rows` holds [step, score], mIoU or (mask) mAP, from the same prediction at label resolution as `edgekd evaluate`.
    With `averaged`, which must come before this callback, it scores the averaged weights, which the student ends with.
    """

    def __init__(
        self, dataset: DenseDataset, task: str, data: Data, every: int, averaged: AveragedWeights | None = None
    ) -> None:
        self.dataset, self.task, self.data, self.every, self.averaged = dataset, task, data, every, averaged
        self.rows: list[list[float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, DenseTask)
        student = self.averaged.student if self.averaged else pl_module.student
        self.rows.append([trainer.global_step, self._score(student)])
        for logger in trainer.loggers:
            logger.log_metrics({"validation": self.rows[-1][1]}, step=trainer.global_step)
        student.train()

    def _score(self, student: DenseModel) -> float:
        classes = tuple(self.dataset.classes)
        score = _mean_iou if self.task == "semantic" else _average_precision
        spec = torch_spec(student, self.task, classes, self.data.size, self.data.resize)
        with TorchSession(student, spec) as session:
            return round(score(session, self.dataset), 6)

    def state_dict(self) -> dict[str, list[list[float]]]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[list[float]]]) -> None:
        self.rows = list(state_dict["rows"])


def _mean_iou(session: TorchSession, dataset: DenseDataset) -> float:
    # Only the first process scores, so a metric must not wait for the others.
    iou = MulticlassJaccardIndex(len(dataset.classes), ignore_index=IGNORE_INDEX, sync_on_compute=False)
    predict = Predictor(session)
    for index in range(len(dataset)):
        sample = dataset.load(index)
        predicted, truth = torch.from_numpy(predict(sample.image)), torch.from_numpy(sample.mask)
        iou.update(predicted.long().flatten(), truth.long().flatten())
    return float(iou.compute())


def _average_precision(session: TorchSession, dataset: DenseDataset) -> float:
    kind: Literal["segm", "bbox"] = "segm" if session.spec.task == "instance" else "bbox"
    precision = MeanAveragePrecision(iou_type=kind, backend="faster_coco_eval", sync_on_compute=False)
    predict = Predictor(session)
    for index in range(len(dataset)):
        sample = dataset.load(index)
        assert sample.instances is not None
        predicted, truth = predict(sample.image), sample.instances
        found = {"boxes": predicted.boxes, "labels": predicted.labels, "scores": predicted.scores}
        entries = {
            "boxes": truth.boxes_xyxy,
            "labels": truth.labels,
            "iscrowd": truth.is_crowd,
            "area": truth.coco_areas,
        }
        precision.update(
            [_tensors(**found, masks=_whole(predicted.masks))], [_tensors(**entries, masks=_whole(truth.masks))]
        )
    return float(precision.compute()["map"])


def _whole(masks: Masks | None) -> np.ndarray | None:
    """Return masks (N, h, w) bool for torchmetrics, every second, third, ... pixel of large images: whole ones need gigabytes."""
    if masks is None:
        return None
    step = -(-max(masks.size) // MAX_CURVE_SIDE)
    size = tuple(-(-side // step) for side in masks.size)
    thinned = np.zeros((len(masks), *size), bool)
    for number in range(len(masks)):
        thinned[number] = masks[number][::step, ::step]
    return thinned


def _tensors(**arrays: np.ndarray | None) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items() if a is not None}

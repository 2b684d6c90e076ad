"""The Lightning module: student, frozen teacher, task loss and distillation terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from edgekd.core.recipe import Method as MethodConfig
from edgekd.core.recipe import Train
from edgekd.data.loader import TrainingBatch
from edgekd.models.base import DenseModel, Outputs
from edgekd.train.batch import Batch
from edgekd.train.losses import LOSSES


class Teacher(Protocol):
    """A frozen network that computes outputs for images on the student's device."""

    def __call__(self, images: Tensor) -> Outputs:
        """Return the outputs for images (B, 3, H, W) float in [0, 1], without gradients."""

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move to the device on which the student trains."""


@dataclass(frozen=True)
class Distiller:
    """The teacher, and the configuration and the module of each distillation method by name."""

    teacher: Teacher
    methods: dict[str, tuple[MethodConfig, nn.Module]]


class DenseTask(L.LightningModule):
    """Trains a student on labels and, with a `Distiller`, on distillation terms.

    The teacher is outside the module tree (`FrozenTeacher`). The methods' adapters are in the tree: they train and resume
    with the student.
    """

    def __init__(
        self,
        student: DenseModel,
        train: Train,
        distiller: Distiller | None,
        channels_last: bool,
        task: str = "semantic",
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)  # computed again when the run resumes
        self.loss = LOSSES[task]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.student = student.to(memory_format=self.memory_format)
        self.budget = train
        self.methods = nn.ModuleDict({n: m for n, (_, m) in distiller.methods.items()} if distiller else {})
        self.configs = {n: c for n, (c, _) in distiller.methods.items()} if distiller else {}
        self._teacher = distiller.teacher if distiller else None
        self._read: tuple[dict[str, Tensor], dict[str, float]] = ({}, {})

    def on_fit_start(self) -> None:
        """Move the teacher to the device that the student trains on."""
        if self._teacher:
            self._teacher.to(self.device, self.memory_format)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return `loss`, the task loss, its parts where it has several, and the raw terms of the methods."""
        images = batch.images.float().div(255).contiguous(memory_format=self.memory_format)
        labels = Batch(images, batch.masks.long(), batch.objects, self.class_weights)
        student, teacher = self.student(images), None
        if self._teacher:
            teacher = Outputs.of(batch.teacher_outputs) if batch.teacher_outputs is not None else self._teacher(images)
        with torch.autocast(
            self.device.type, enabled=False
        ):  # autocast would compute the losses' matrix products in bf16
            parts = self.loss(student, labels)
            loss = task = torch.stack(list(parts.values())).sum()
            terms = {"task": task, **(parts if len(parts) > 1 else {})}
            for name, method in self.methods.items():
                weight = self.weight_at(name, self.global_step)
                for term, value in method(teacher, student, labels).items():
                    terms[f"{name}.{term}"] = value
                    loss = loss + weight * value
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}

    def losses_of(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """Return the losses of `training_step` as numbers, the mean over all devices.

        The device is read once per step for all terms and all callbacks.
        """
        if self._read[0] is not outputs:
            values = torch.stack([value.detach() for value in outputs.values()])
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(values)
                values = values / dist.get_world_size()
            self._read = (outputs, dict(zip(outputs, values.tolist(), strict=True)))
        return self._read[1]

    def weight_at(self, method: str, step: int) -> float:
        """Return a method's weight at a step."""
        return self.configs[method].weight_at(step, self.budget.steps)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW or SGD with one-cycle or polynomial decay per step; norms and biases are not decayed."""
        budget = self.budget
        decayed = [p for p in self.parameters() if p.ndim > 1]
        plain = [p for p in self.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": budget.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        optimizer: torch.optim.Optimizer
        if budget.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=budget.lr)
        else:
            optimizer = torch.optim.SGD(groups, lr=budget.lr, momentum=0.9, nesterov=True)
        scheduler: Any
        if budget.schedule == "one_cycle":
            steps = budget.steps + 1
            rise = max(0.1, 2 / steps)  # torch divides by the length of the rise, less one step
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=budget.lr, total_steps=steps, pct_start=rise, cycle_momentum=False
            )
        else:
            scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=budget.steps, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

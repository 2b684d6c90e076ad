"""A network, a data set and a training run that are as small as they can be; also a program that can kill itself.

    python tiny_task.py SCRATCH WEIGHTS EMA KILL_AT_LOAD SIGNAL

trains (or resumes) in SCRATCH and writes the student's weights to WEIGHTS. At the KILL_AT_LOAD-th image read it sends
itself SIGNAL (`SIGKILL`); 0 never does. Exits with 130 when `fit` says that it was interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.core.recipe import Augment, Data, Method, Train, Trainer
from edgekd.data.base import Sample
from edgekd.distill.base import pyramid_of
from edgekd.distill.methods import bckd, kd, mgd
from edgekd.distill.teacher import FrozenTeacher
from edgekd.models.base import DenseModel, Outputs
from edgekd.train.loop import FitJob, fit
from edgekd.train.module import Distiller

CLASSES = 3
SIZE = (32, 48)
STEPS = 6
BATCH = 4


class TinyNet(DenseModel):
    """Strides 4 and 8, batch norm, and dropout so that the random generator matters."""

    size_divisor = 8

    def __init__(self, width: int, seed: int, dropout: float = 0.2) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        torch.manual_seed(seed)
        self.channels = {4: width, 8: 2 * width}
        self.decoder_channels = width
        self.fine = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.lateral = nn.Conv2d(2 * width, width, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, CLASSES, 1)

    def forward_normalized(self, images: Tensor) -> Outputs:
        fine = self.fine(images)
        coarse = self.coarse(fine)
        decoder = self.dropout(fine + F.interpolate(self.lateral(coarse), scale_factor=2.0))
        logits = F.interpolate(self.classifier(decoder), scale_factor=4.0, mode="bilinear")
        return Outputs({"logits": logits}, {4: fine, 8: coarse}, decoder)


class Boxes:
    """Images of one coloured box each; `on_load` is called with the number of images read so far."""

    classes: tuple[str, ...] = ("ground", "red", "blue")

    def __init__(self, count: int = 64, on_load: Callable[[int], None] = lambda number: None) -> None:
        self.count, self.on_load, self.loads = count, on_load, 0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"box-{index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def load(self, index: int) -> Sample:
        self.loads += 1
        self.on_load(self.loads)
        rng = np.random.default_rng(index)
        image = rng.integers(60, 120, (*SIZE, 3), dtype=np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        top, left, label = rng.integers(0, 16), rng.integers(0, 24), rng.integers(1, 3)
        image[top : top + 14, left : left + 20, 0 if label == 1 else 2] += 100
        mask[top : top + 14, left : left + 20] = label
        return Sample(self.name(index), image, mask)


def distiller(student: DenseModel) -> Distiller:
    """Return kd and bckd with a teacher of other channels."""
    teacher = TinyNet(8, seed=99)
    pyramids = pyramid_of(teacher, CLASSES, "semantic"), pyramid_of(student, CLASSES, "semantic")
    methods: dict[str, tuple[Method, nn.Module]] = {
        "kd": (Method(weight=0.5), kd.Method(kd.Options(), *pyramids)),
        "bckd": (Method(weight=0.5, warmup=0.5), bckd.Method(bckd.Options(), *pyramids)),
    }
    return Distiller(FrozenTeacher(teacher), methods)


def with_draws(student: DenseModel) -> Distiller:
    """Return `distiller` and a method that draws at random, has adapters, and whose weight decays."""
    plain = distiller(student)
    pyramids = pyramid_of(plain.teacher.model, CLASSES, "semantic"), pyramid_of(student, CLASSES, "semantic")
    drawing = (Method(weight=0.5, schedule="decay"), mgd.Method(mgd.Options(), *pyramids))
    return Distiller(plain.teacher, {**plain.methods, "mgd": drawing})


def job(scratch: Path, dataset: Boxes, ema: float | None = None, **budget: Any) -> FitJob:
    """Return a distilled run of STEPS steps on one CPU thread, checkpointed every second step."""
    student = TinyNet(6, seed=5)
    train = {"steps": STEPS, "batch_size": BATCH, "checkpoint_every": 2, "precision": "32-true", **budget}
    return FitJob(
        title="tiny",
        student=student,
        distiller=with_draws(student),
        dataset=dataset,
        data=Data(format="none", size=SIZE, augment=Augment()),
        budget=Train(ema=ema, **train),
        trainer=Trainer(accelerator="cpu", devices=1, workers=0),
        seed=3,
        watchdog_ratio=1000.0,
        scratch=scratch,
    )


def train_until_killed(scratch: str, weights: str, ema: str, kill_at_load: str, name: str) -> None:
    def kill(number: int) -> None:
        if number == int(kill_at_load):
            os.kill(os.getpid(), signal.Signals[name])

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with SIGINT ignored
    run = job(Path(scratch), Boxes(on_load=kill), float(ema) or None)
    try:
        result = fit(run)
    except KeyboardInterrupt:
        sys.exit(130)
    torch.save({"state": run.student.state_dict(), "record": result["record"]}, weights)

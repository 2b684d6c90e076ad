"""Batches as a pure function of (seed, step): the same at every restart, with any number of workers or devices.

Step k takes the next `batch_size` images of an endless sequence of per-epoch permutations; the augmentation of each
place in that sequence has a seed of its own. Resuming at step k therefore needs no state but k.

With `augment.views` every image has that many fixed views (augmentations drawn once, the same for every training
seed), and epoch e shows view e mod `views` of each. A teacher's answers to them can be kept (`distill/teacher_cache.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edgekd.core.recipe import Data
from edgekd.data.augment import Objects, View, augmented, training_transform
from edgekd.data.base import DenseDataset, Sample

# Decoded images are kept in memory up to this many bytes, by all workers of a loader together.
CACHE_BYTES = 2 << 30

Answers = Callable[[int], dict[str, torch.Tensor]]


class StepBatches(Sampler[list[int]]):
    """Yields, per step, the places of one batch in the endless training sequence.

    `len` is the total number of steps also when iteration starts at `start_step`: Lightning counts the batches that a
    resumed loop has already seen.
    """

    def __init__(self, steps: int, batch_size: int, start_step: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.steps, self.batch_size, self.start_step = steps, batch_size, start_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.steps):
            first = step * self.batch_size
            yield list(range(first + self.rank, first + self.batch_size, self.world_size))


class FixedViews(Dataset[View]):
    """View v of image i as number i * views + v; numpy seeds it with (2, i, v) and it is kept in memory."""

    def __init__(self, dataset: DenseDataset, data: Data, task: str = "semantic", sharers: int = 1) -> None:
        assert data.augment.views is not None
        self.dataset, self.views, self.task = dataset, data.augment.views, task
        self.transform = training_transform(data.augment, data.size, data.resize)
        self._kept = _Kept(CACHE_BYTES // sharers)

    def __len__(self) -> int:
        return len(self.dataset) * self.views

    def __getitem__(self, number: int) -> View:
        index, view = divmod(number, self.views)
        return self._kept.get(
            number, lambda: augmented(self.dataset.load(index), self.transform, _seed(2, index, view), self.task)
        )


class TrainingItem(NamedTuple):
    """One view, and the teacher's kept answers to it."""

    view: View
    answers: dict[str, torch.Tensor] | None = None


class TrainingSequence(Dataset[TrainingItem]):
    """Place p of the endless sequence: image `permutation(epoch)[p % n]`, augmented with a seed made of (seed, p).

    With `augment.views` it is the epoch's fixed view of that image, followed by `answers(number)` where given. `sharers` is
    the number of processes that keep what they have decoded.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        data: Data,
        seed: int,
        answers: Answers | None = None,
        task: str = "semantic",
        sharers: int = 1,
    ) -> None:
        self.dataset, self.seed, self.answers, self.task = dataset, seed, answers, task
        self.transform = training_transform(data.augment, data.size, data.resize)
        self.fixed = FixedViews(dataset, data, task, sharers) if data.augment.views else None
        self._kept = _Kept(CACHE_BYTES // sharers)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, place: int) -> TrainingItem:
        epoch, offset = divmod(place, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        index = int(self._order[offset])
        if self.fixed is None:
            sample = self._kept.get(index, lambda: self.dataset.load(index))
            return TrainingItem(augmented(sample, self.transform, _seed(self.seed, 1, place), self.task))
        number = index * self.fixed.views + epoch % self.fixed.views
        return TrainingItem(self.fixed[number], self.answers(number) if self.answers else None)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))


class TrainingBatch(NamedTuple):
    """A batch: images (B, 3, H, W) uint8, masks (B, H, W) uint8, the objects of each image, the answers, stacked."""

    images: torch.Tensor
    masks: torch.Tensor
    objects: list[Objects] | None = None
    answers: dict[str, torch.Tensor] | None = None


def collated(items: Sequence[TrainingItem]) -> TrainingBatch:
    """Return items as one batch."""
    views = [item.view for item in items]
    objects = [view.objects for view in views if view.objects is not None]
    answers = [item.answers for item in items if item.answers is not None]
    return TrainingBatch(
        torch.stack([view.image for view in views]),
        torch.stack([view.mask for view in views]),
        objects or None,
        {name: torch.stack([each[name] for each in answers]) for name in answers[0]} if answers else None,
    )


class _Kept:
    """What was once made, in memory, until so many bytes are reached."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: dict[int, Any] = {}
        self._bytes = 0

    def get(self, key: int, make: Callable[[], Any]) -> Any:
        """Return the item, a Sample or a View, made now if need be."""
        item = self._items.get(key)
        if item is None:
            item = make()
            size = _bytes_of(item)
            if self._bytes + size <= self._most:
                self._bytes += size
                self._items[key] = item
        return item


def _bytes_of(item: Sample | View) -> int:
    objects = item.objects if isinstance(item, View) else item.instances
    masks = None if objects is None else objects.masks
    return item.image.nbytes + item.mask.nbytes + (0 if masks is None else masks.nbytes)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def training_loader(
    dataset: DenseDataset,
    data: Data,
    seed: int,
    batches: StepBatches,
    workers: int,
    answers: Answers | None = None,
    task: str = "semantic",
) -> DataLoader[TrainingItem]:
    """Return the loader of the batches (`collated`) for the steps of `batches`.

    With `answers`, which gives named tensors for the number of a fixed view, each batch holds those as well.
    """
    workers = min(workers, os.cpu_count() or 1)
    sequence = TrainingSequence(dataset, data, seed, answers, task, max(1, workers))
    return DataLoader(
        sequence,
        batch_sampler=batches,
        collate_fn=collated,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )

"""Batches as a pure function of (seed, step): the same at every restart, with any number of workers or devices.

Step k takes the next `batch_size` images of an endless sequence of per-epoch permutations; the augmentation of each
place in that sequence has a seed of its own. Resuming at step k therefore needs no state but k.

With `augment.views` every image has that many fixed views (augmentations drawn once, the same for every training
seed), and epoch e shows view e mod `views` of each. A teacher's answers to them can be kept (`distill/answers.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edgekd.core.recipe import Data
from edgekd.data.augment import augmented, training_transform
from edgekd.data.base import DenseDataset, Sample

# Decoded images are kept in memory up to this many bytes per process.
CACHE_BYTES = 2 << 30

Pair = tuple[torch.Tensor, torch.Tensor]
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


class FixedViews(Dataset[Pair]):
    """View v of image i as number i * views + v; numpy seeds it with (2, i, v) and it is kept in memory."""

    def __init__(self, dataset: DenseDataset, data: Data) -> None:
        assert data.augment.views is not None
        self.dataset, self.views = dataset, data.augment.views
        self.transform = training_transform(data.augment, data.size)
        self._kept = _Kept()

    def __len__(self) -> int:
        return len(self.dataset) * self.views

    def __getitem__(self, number: int) -> Pair:
        index, view = divmod(number, self.views)
        return self._kept.get(
            number, lambda: augmented(self.dataset.load(index), self.transform, _seed(2, index, view))
        )


class TrainingSequence(Dataset[tuple[Any, ...]]):
    """Place p of the endless sequence: image `permutation(epoch)[p % n]`, augmented with a seed made of (seed, p).

    With `augment.views` it is the epoch's fixed view of that image, followed by `answers(number)` where given.
    """

    def __init__(self, dataset: DenseDataset, data: Data, seed: int, answers: Answers | None = None) -> None:
        self.dataset, self.seed, self.answers = dataset, seed, answers
        self.transform = training_transform(data.augment, data.size)
        self.fixed = FixedViews(dataset, data) if data.augment.views else None
        self._kept = _Kept()
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        epoch, offset = divmod(place, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        index = int(self._order[offset])
        if self.fixed is None:
            sample = self._kept.get(index, lambda: self.dataset.load(index))
            return augmented(sample, self.transform, _seed(self.seed, 1, place))
        number = index * self.fixed.views + epoch % self.fixed.views
        return (*self.fixed[number], self.answers(number)) if self.answers else self.fixed[number]

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))


class _Kept:
    """What was once made, in memory, until CACHE_BYTES are reached."""

    def __init__(self) -> None:
        self._items: dict[int, Any] = {}
        self._bytes = 0

    def get(self, key: int, make: Callable[[], Any]) -> Any:
        """Return the item, made now if need be; it is a Sample or a pair, of an image and a mask."""
        item = self._items.get(key)
        if item is None:
            item = make()
            image, mask = (item.image, item.mask) if isinstance(item, Sample) else item
            self._bytes += image.nbytes + mask.nbytes
            if self._bytes <= CACHE_BYTES:
                self._items[key] = item
        return item


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def training_loader(
    dataset: DenseDataset, data: Data, seed: int, batches: StepBatches, workers: int, answers: Answers | None = None
) -> DataLoader[tuple[Any, ...]]:
    """Return the loader of uint8 (B, 3, H, W) images and (B, H, W) masks for the steps of `batches`.

    With `answers`, which gives named tensors for the number of a fixed view, each batch holds those, stacked, as well.
    """
    sequence = TrainingSequence(dataset, data, seed, answers)
    workers = min(workers, os.cpu_count() or 1)
    return DataLoader(
        sequence,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )

"""Training batches as a pure function of (seed, step): the same after every restart, with any number of workers or devices.

Step k takes the next `batch_size` images of an endless sequence of per-epoch permutations. Each position in that sequence
has its own augmentation seed. Resuming at step k therefore needs no state but k.

With `augment.views` every image has that many fixed views: augmentations drawn once, the same for every training seed.
Epoch e shows view e mod `views` of each image. The teacher's outputs for them can be cached (`distill/teacher_cache.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edgekd.board.masks import Masks
from edgekd.board.run_masks import size_bytes
from edgekd.core.recipe import Data
from edgekd.data.augment import Objects, View, augmented, training_transform
from edgekd.data.base import DenseDataset, Sample

# Memory for decoded images, for all workers of a loader together.
CACHE_BYTES = 2 << 30

# Number of a fixed view -> the teacher's outputs for it, by name, without a batch axis.
CachedOutputs = Callable[[int], dict[str, torch.Tensor]]


class StepBatches(Sampler[list[int]]):
    """Yields, per step, the positions of one batch in the endless training sequence.

    `len` is the total number of steps, also when iteration starts at `start_step`: Lightning counts the batches of a
    resumed run from the first one.
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
    """The fixed views of a data set: view v of image i has number i * views + v and the numpy seed (2, i, v).

    `processes` share the memory for views that stay decoded.
    """

    def __init__(self, dataset: DenseDataset, data: Data, task: str = "semantic", processes: int = 1) -> None:
        assert data.augment.views is not None
        self.dataset, self.views, self.task = dataset, data.augment.views, task
        self.transform = training_transform(data.augment, data.size, data.resize, dataset.classes)
        self._cache = _Cache(CACHE_BYTES // processes)

    def __len__(self) -> int:
        return len(self.dataset) * self.views

    def __getitem__(self, number: int) -> View:
        index, view = divmod(number, self.views)
        return self._cache.get(
            number, lambda: augmented(self.dataset.load(index), self.transform, _seed(2, index, view), self.task)
        )


class TrainingItem(NamedTuple):
    """One view, and the teacher's cached outputs for it."""

    view: View
    teacher_outputs: dict[str, torch.Tensor] | None = None


class TrainingSequence(Dataset[TrainingItem]):
    """The endless training sequence. Position p is image `permutation(epoch)[p % n]`, augmented with a seed made of (seed, p).

    With `augment.views` it is the epoch's fixed view of that image, with the teacher's outputs where `teacher_cache` is given.
    `processes` share the memory for decoded images.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        data: Data,
        seed: int,
        teacher_cache: CachedOutputs | None = None,
        task: str = "semantic",
        processes: int = 1,
    ) -> None:
        self.dataset, self.seed, self.teacher_cache, self.task = dataset, seed, teacher_cache, task
        self.transform = training_transform(data.augment, data.size, data.resize, dataset.classes)
        self.fixed = FixedViews(dataset, data, task, processes) if data.augment.views else None
        self._cache = _Cache(CACHE_BYTES // processes)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> TrainingItem:
        epoch, offset = divmod(position, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        index = int(self._order[offset])
        if self.fixed is None:
            sample = self._cache.get(index, lambda: self.dataset.load(index))
            return TrainingItem(augmented(sample, self.transform, _seed(self.seed, 1, position), self.task))
        number = index * self.fixed.views + epoch % self.fixed.views
        return TrainingItem(self.fixed[number], self.teacher_cache(number) if self.teacher_cache else None)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))


class TrainingBatch(NamedTuple):
    """A batch: images (B, 3, H, W) uint8, masks (B, H, W) uint8, the objects of each image, the teacher's outputs stacked."""

    images: torch.Tensor
    masks: torch.Tensor
    objects: list[Objects] | None = None
    teacher_outputs: dict[str, torch.Tensor] | None = None


def collated(items: Sequence[TrainingItem]) -> TrainingBatch:
    """Stack items to one batch."""
    views = [item.view for item in items]
    objects = [view.objects for view in views if view.objects is not None]
    outputs = [item.teacher_outputs for item in items if item.teacher_outputs is not None]
    return TrainingBatch(
        torch.stack([view.image for view in views]),
        torch.stack([view.mask for view in views]),
        objects or None,
        {name: torch.stack([each[name] for each in outputs]) for name in outputs[0]} if outputs else None,
    )


class _Cache:
    """Samples or views by number, in memory up to `max_bytes`; later ones are made each time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: dict[int, Any] = {}
        self._bytes = 0

    def get(self, key: int, make: Callable[[], Any]) -> Any:
        """Return the item from memory, else make it."""
        item = self._items.get(key)
        if item is None:
            item = make()
            size = _size_bytes(item)
            if self._bytes + size <= self._max_bytes:
                self._bytes += size
                self._items[key] = item
        return item


def _size_bytes(item: Sample | View) -> int:
    objects = item.objects if isinstance(item, View) else item.instances
    masks = None if objects is None else objects.masks
    taken = 0 if masks is None else size_bytes(masks) if isinstance(masks, Masks) else masks.nbytes
    return item.image.nbytes + item.mask.nbytes + taken


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def training_loader(
    dataset: DenseDataset,
    data: Data,
    seed: int,
    batches: StepBatches,
    workers: int,
    teacher_cache: CachedOutputs | None = None,
    task: str = "semantic",
) -> DataLoader[TrainingItem]:
    """Return a loader that yields a `TrainingBatch` per step of `batches`, with the teacher's outputs from `teacher_cache`."""
    workers = min(workers, os.cpu_count() or 1)
    sequence = TrainingSequence(dataset, data, seed, teacher_cache, task, max(1, workers))
    return DataLoader(
        sequence,
        batch_sampler=batches,
        collate_fn=collated,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )

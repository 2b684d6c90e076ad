"""Batches as a pure function of (seed, step): the same at every restart, with any number of workers or devices.

Step k takes the next `batch_size` images of an endless sequence of per-epoch permutations; the augmentation of each
place in that sequence has a seed of its own. Resuming at step k therefore needs no state but k.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from edgekd.core.recipe import Data
from edgekd.data.augment import augmented, training_transform
from edgekd.data.base import DenseDataset, Sample

# Decoded images are kept in memory up to this many bytes per process.
CACHE_BYTES = 2 << 30


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


class TrainingSequence(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Place p of the endless sequence: image `permutation(epoch)[p % n]`, augmented with a seed made of (seed, p)."""

    def __init__(self, dataset: DenseDataset, transform: v2.Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, offset = divmod(place, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        seed = int(np.random.SeedSequence([self.seed, 1, place]).generate_state(1)[0])
        return augmented(self._load(int(self._order[offset])), self.transform, seed)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))

    def _load(self, index: int) -> Sample:
        sample = self._cache.get(index)
        if sample is None:
            sample = self.dataset.load(index)
            size = sample.image.nbytes + sample.mask.nbytes
            if self._cached_bytes + size <= CACHE_BYTES:
                self._cached_bytes += size
                self._cache[index] = sample
        return sample


def training_loader(
    dataset: DenseDataset, data: Data, seed: int, batches: StepBatches, workers: int
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return the loader of uint8 (B, 3, H, W) images and (B, H, W) masks for the steps of `batches`."""
    sequence = TrainingSequence(dataset, training_transform(data.augment, data.size), seed)
    workers = min(workers, os.cpu_count() or 1)
    return DataLoader(
        sequence,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )

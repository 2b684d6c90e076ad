"""Training batches: a pure function of (seed, step)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.core.recipe import Augment, Data
from edgekd.data.base import Sample
from edgekd.data.loader import FixedViews, StepBatches, TrainingBatch, TrainingSequence, training_loader

SIZE = (16, 24)
DATA = Data(format="none", size=SIZE, augment=Augment())
STILL = Data(format="none", size=SIZE, augment=Augment(scale=(1.0, 1.0), flip=0.0, color=0.0))
Batches = list[TrainingBatch]


class Numbered:
    """Image i is the number 10 i everywhere, with a gradient so that flips and crops show; `loads` counts reads."""

    classes: tuple[str, ...] = ("all",)

    def __init__(self, count: int = 7) -> None:
        self.count, self.loads = count, 0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def load(self, index: int) -> Sample:
        self.loads += 1
        image = np.full((*SIZE, 3), 10 * index, np.uint8)
        image[..., 1] = np.arange(SIZE[1])
        return Sample(str(index), image, np.zeros(SIZE, np.uint8))


def batches(data: Data, steps: StepBatches, seed: int = 1, workers: int = 0) -> Batches:
    return list(training_loader(Numbered(), data, seed, steps, workers))


def assert_same(one: Batches, other: Batches) -> None:
    assert len(one) == len(other)
    for batch, other_batch in zip(one, other, strict=True):
        assert torch.equal(batch.images, other_batch.images)
        assert torch.equal(batch.masks, other_batch.masks)


def indices(images: torch.Tensor) -> list[int]:
    return [int(value) // 10 for value in images[:, 0, 0, 0]]


def test_batches_are_uint8_images_and_masks() -> None:
    image, mask, *_ = batches(DATA, StepBatches(1, 4))[0]
    assert image.dtype == mask.dtype == torch.uint8
    assert tuple(image.shape) == (4, 3, *SIZE)
    assert tuple(mask.shape) == (4, *SIZE)


def test_two_loaders_give_the_same_batches_whatever_ran_before() -> None:
    torch.manual_seed(1)
    first = batches(DATA, StepBatches(5, 4))
    torch.manual_seed(2)
    np.random.seed(3)
    assert_same(first, batches(DATA, StepBatches(5, 4)))


def test_another_seed_gives_other_batches() -> None:
    first, other = batches(DATA, StepBatches(1, 4), seed=1), batches(DATA, StepBatches(1, 4), seed=2)
    assert not torch.equal(first[0][0], other[0][0])


def test_starting_at_a_step_gives_the_tail() -> None:
    whole = batches(DATA, StepBatches(6, 3))
    for start in (1, 4, 6):
        assert_same(batches(DATA, StepBatches(6, 3, start_step=start)), whole[start:])


def test_the_length_is_the_whole_run_also_for_a_tail() -> None:
    assert len(StepBatches(6, 3, start_step=4)) == 6


def test_worker_processes_change_nothing() -> None:
    assert_same(batches(DATA, StepBatches(4, 3), workers=2), batches(DATA, StepBatches(4, 3)))


def test_ranks_share_out_every_batch() -> None:
    whole = batches(DATA, StepBatches(4, 6))
    parts = [batches(DATA, StepBatches(4, 6, rank=rank, world_size=2)) for rank in range(2)]
    for step, (image, mask, *_) in enumerate(whole):
        for rank in range(2):
            assert torch.equal(parts[rank][step][0], image[rank::2])
            assert torch.equal(parts[rank][step][1], mask[rank::2])


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    seen = [index for image, *_ in batches(STILL, StepBatches(7, 3)) for index in indices(image)]  # 21 = 3 epochs of 7
    epochs = [seen[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_image_is_augmented_differently_in_every_epoch() -> None:
    data = Data(format="none", size=SIZE, augment=Augment(scale=(1.0, 2.0), flip=0.5, color=0.0))
    loader = training_loader(Numbered(count=1), data, 0, StepBatches(6, 1), 0)
    crops = [image for image, *_ in loader]
    assert sum(not torch.equal(crops[0], crop) for crop in crops[1:]) >= 4


def test_an_image_is_read_once_and_kept() -> None:
    dataset = Numbered()
    loader = training_loader(dataset, DATA, 0, StepBatches(14, 3), 0)
    assert sum(len(batch.images) for batch in loader) == 42
    assert dataset.loads == 7


def test_images_beyond_the_cache_are_read_again() -> None:
    dataset = Numbered(count=3)
    sequence = TrainingSequence(dataset, DATA, seed=0)
    sequence._cache._bytes = 2 << 30  # full
    for place in (0, 1, 2, 3):
        sequence[place]
    assert dataset.loads == 4


VIEWS = Data(format="none", size=SIZE, augment=Augment(scale=(1.0, 2.0), color=0.0, views=2))


def epoch_of(sequence: TrainingSequence, epoch: int) -> dict[int, torch.Tensor]:
    images = [sequence[place].view.image for place in range(7 * epoch, 7 * epoch + 7)]
    return {indices(image[None])[0]: image for image in images}


def test_fixed_views_come_in_turn_and_are_the_same_for_every_seed() -> None:
    one, other = (TrainingSequence(Numbered(), VIEWS, seed) for seed in (1, 2))
    first, second, third = (epoch_of(one, epoch) for epoch in range(3))
    assert set(first) == set(second) == set(range(7))
    assert sum(not torch.equal(first[index], second[index]) for index in range(7)) >= 5
    assert all(torch.equal(first[index], third[index]) for index in range(7))
    assert all(torch.equal(first[index], image) for index, image in epoch_of(other, 0).items())


def test_a_batch_carries_the_teachers_outputs_for_its_views() -> None:
    def teacher_cache(number: int) -> dict[str, torch.Tensor]:
        return {"number": torch.tensor([number])}

    loader = training_loader(Numbered(), VIEWS, 0, StepBatches(7, 4), 0, teacher_cache)
    fixed = FixedViews(Numbered(), VIEWS)
    seen = []
    for images, masks, _, outputs in loader:
        for image, mask, number in zip(images, masks, outputs["number"].flatten().tolist(), strict=True):
            assert torch.equal(fixed[number][0], image)
            assert torch.equal(fixed[number][1], mask)
            seen.append(number)
    assert sorted(seen[:7]) == [0, 2, 4, 6, 8, 10, 12]
    assert sorted(seen[7:14]) == [1, 3, 5, 7, 9, 11, 13]


def test_views_are_augmented_once() -> None:
    dataset = Numbered()
    loader = training_loader(dataset, VIEWS, 0, StepBatches(14, 3), 0)
    assert sum(len(batch.images) for batch in loader) == 42
    assert dataset.loads == 14


def test_an_image_too_large_to_keep_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uneven(Numbered):
        def load(self, index: int) -> Sample:
            sample = super().load(index)
            return (
                Sample("large", sample.image.repeat(20, axis=0), sample.mask.repeat(20, axis=0))
                if index == 0
                else sample
            )

    monkeypatch.setattr("edgekd.data.loader.CACHE_BYTES", 12_000)  # six images of 16 x 24 x 4 bytes take 9216
    dataset = Uneven()
    sequence = TrainingSequence(dataset, STILL, seed=0)
    for place in range(21):  # three epochs
        sequence[place]
    assert dataset.loads == 6 + 3

"""Training augmentation: image and mask move together, and a seed decides everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd.core.recipe import Augment
from edgekd.data.augment import ResizeJitter, augmented, training_transform
from edgekd.data.base import Sample

SIZE = (40, 60)


def coordinates(axis: int) -> Sample:
    """Return a sample whose mask is each pixel's row (axis 0) or column (axis 1), and whose image is that plus 100."""
    mask = np.indices(SIZE)[axis].astype(np.uint8)
    return Sample("coordinates", np.repeat(mask[:, :, None] + 100, 3, axis=2).astype(np.uint8), mask)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("crop", [None, (24, 80)])
def test_image_and_mask_stay_aligned_and_padding_is_ignored(axis: int, crop: tuple[int, int] | None) -> None:
    transform = training_transform(Augment(crop=crop, scale=(0.6, 1.7), flip=0.5, color=0.0), SIZE)
    padded = flipped = 0
    for seed in range(40):
        image, mask, _ = augmented(coordinates(axis), transform, seed)
        assert image.dtype == mask.dtype == torch.uint8
        assert tuple(image.shape) == (3, *(crop or SIZE))
        assert tuple(mask.shape) == (crop or SIZE)
        inside = mask != 255
        assert inside.any()
        assert torch.equal(inside, image[0] != 0)  # black is padding only: the image itself is 100 and more
        shown = image[0].int() - 100
        assert (shown - mask.int())[inside].abs().max() <= 1  # bilinear against nearest
        padded += int(not inside.all())
        rows = mask[inside.any(1)][:, inside.any(0)].int()
        flipped += int(axis == 1 and bool(rows[0, 0] > rows[0, -1]))
    assert 0 < padded < 40 or crop is not None
    assert axis == 0 or 8 < flipped < 32


def test_the_same_seed_gives_the_same_crop_and_another_seed_another() -> None:
    transform = training_transform(Augment(), SIZE)
    first, again, other = (augmented(coordinates(1), transform, seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmenting_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augmented(coordinates(0), training_transform(Augment(), SIZE), 1)
    assert torch.equal(torch.rand(3), expected)


def test_factor_one_without_flip_and_color_is_the_resize_of_deployment() -> None:
    """Pillow's bilinear resize is what `Preprocess` promises."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).integers(0, 5, SIZE, dtype=np.uint8)
    size = (20, 30)
    transform = training_transform(Augment(scale=(1.0, 1.0), flip=0.0, color=0.0), size)
    image, resized_mask, _ = augmented(Sample("noise", pixels, mask), transform, 0)
    oracle = np.asarray(Image.fromarray(pixels).resize((30, 20), Image.Resampling.BILINEAR))
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - oracle).max() <= 1
    np.testing.assert_array_equal(resized_mask.numpy(), mask[1::2, 1::2])  # nearest to the centre of 2 x 2, down right


def test_color_jitter_changes_the_image_and_never_the_mask() -> None:
    transform = training_transform(Augment(scale=(1.0, 1.0), flip=0.0, color=0.5), SIZE)
    sample = coordinates(0)
    image, mask, _ = augmented(sample, transform, 3)
    assert not np.array_equal(image.permute(1, 2, 0).numpy(), sample.image)
    np.testing.assert_array_equal(mask.numpy(), sample.mask)


def test_factors_are_log_uniform_within_their_bounds() -> None:
    jitter = ResizeJitter((1000, 2000), (0.5, 2.0))
    torch.manual_seed(0)
    sizes = [jitter.make_params([])["size"] for _ in range(2000)]
    factors = np.array([height / 1000 for height, _ in sizes])
    assert all(abs(width - 2 * height) <= 2 for height, width in sizes)
    assert factors.min() >= 0.5
    assert factors.max() <= 2.0
    logs = np.log2(factors)  # uniform on [-1, 1]: mean 0, standard deviation 1 / sqrt 3
    assert abs(logs.mean()) < 0.05
    assert logs.std() == pytest.approx(1 / math.sqrt(3), rel=0.05)

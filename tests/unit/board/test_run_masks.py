"""Masks of objects as run lengths: equal to whole masks in every use, and small."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.board.masks import Masks
from edgekd.board.run_masks import RunParts, mask_areas, packed, run_masks, size_bytes, tight_masks, union, unpacked
from edgekd.board.runs import encode_runs
from edgekd.data.base import Instances


def random_masks(rng: np.random.Generator) -> np.ndarray:
    """Return noise, stripes, single pixels, whole and blank masks, (N, H, W) bool."""
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    masks = rng.random((7, height, width)) < rng.random((7, 1, 1))
    masks[1] = False
    masks[2] = True
    masks[3] = False
    masks[3, rng.integers(height), rng.integers(width)] = True
    masks[4] = np.arange(height)[:, None] % 2 == 0
    masks[5] = np.arange(width) % 2 == 0
    return masks


def from_runs(masks: np.ndarray) -> Masks:
    size = (masks.shape[1], masks.shape[2])
    return run_masks([np.array(encode_runs(mask)["counts"]) for mask in masks], size)


@pytest.mark.parametrize("make", [from_runs, tight_masks])
def test_masks_are_those_that_they_were_made_of(make: object) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        whole = random_masks(rng)
        masks = make(whole)  # type: ignore[operator]
        assert len(masks) == len(whole)
        np.testing.assert_array_equal(masks.whole(), whole)
        np.testing.assert_array_equal(mask_areas(masks), whole.sum(axis=(1, 2)))
        np.testing.assert_array_equal(union(masks), whole.any(axis=0))
        chosen = rng.random(len(whole)) < 0.5
        np.testing.assert_array_equal(masks.only(chosen).whole(), whole[chosen])
        numbers = [4, 0, 1]
        stored = packed(masks, numbers)
        again = unpacked(stored["mask_runs"], stored["mask_run_counts"], masks.size)
        np.testing.assert_array_equal(again.whole(), whole[numbers])
        for mask, (x1, y1, x2, y2) in zip(whole, masks.corners.tolist(), strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            frame = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows.size else [0, 0, 0, 0]
            # Run lengths that pass the lower edge say no rows.
            assert [x1, x2] == frame[::2]
            assert y1 <= frame[1] <= frame[3] <= y2 or not rows.size


def test_no_masks_are_packed_and_unpacked() -> None:
    stored = packed(tight_masks(np.zeros((0, 3, 4), bool)), [])
    assert len(unpacked(stored["mask_runs"], stored["mask_run_counts"], (3, 4))) == 0
    assert union(run_masks([], (3, 4))).shape == (3, 4)


def test_run_lengths_take_no_memory_by_area() -> None:
    """A square of 2000 columns and a million pixels: a run of pixels and one of zeros for each column, 4 bytes each."""
    mask = np.zeros((3000, 4000), bool)
    mask[100:600, 1000:3000] = True
    masks = from_runs(mask[None])
    assert size_bytes(masks) == 4 * (2 * 2000 + 1)
    assert masks.corners.tolist() == [[1000, 100, 3000, 600]]
    assert masks.parts[0].all()
    assert isinstance(masks.parts, RunParts)


def test_whole_masks_of_instances_become_parts() -> None:
    whole = random_masks(np.random.default_rng(1))
    instances = Instances(whole, np.zeros((7, 4), np.float32), np.zeros(7, np.int64))  # type: ignore[arg-type]
    assert isinstance(instances.masks, Masks)
    np.testing.assert_array_equal(instances.masks.whole(), whole)
    np.testing.assert_array_equal(instances.coco_areas, whole.sum(axis=(1, 2)))

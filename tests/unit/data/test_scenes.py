"""The rendered scenes: same bytes everywhere, masks, objects and boxes that agree, thin parts that hold together."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from edgekd.data.base import Sample
from edgekd.data.formats.scenes import Options, open_dataset
from edgekd.data.scenes import BALL, BUILDING, CLASSES, POLE, RING, SIGN, SKY, WALL, shapes
from edgekd.data.scenes.canvas import Canvas
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.render import instances_from_ids
from edgekd.data.scenes.textures import Material
from edgekd.errors import DataError

WHITE = Material((255, 255, 255))


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    dataset = open_dataset(Options(train=100), "train")
    return [dataset.load(index) for index in range(100)]


def digest(samples: list[Sample]) -> str:
    total = hashlib.sha256()
    for sample in samples:
        assert sample.instances is not None
        for array in (sample.image, sample.mask, sample.instances.masks.whole(), sample.instances.boxes_xyxy):
            total.update(np.ascontiguousarray(array).tobytes())
        total.update(sample.instances.labels.astype("<i8").tobytes())
    return total.hexdigest()


# --- the same everywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "split", "expected"),
    [
        (96, 128, "train", "984b6fcca459732b13452f8570ca724cf69f698997a99cde98dff6babacc6b52"),
        (96, 128, "val", "31b011822099982de35ef4191f850416ab7d509e8a49623b20c99163dd563ca2"),
        (99, 131, "test", "d31bfa4f9356afbb6a1e58f15682b577191b8922e25ae0c637c4d810b9ddff19"),
    ],
)
def test_scenes_have_the_committed_bytes(height: int, width: int, split: str, expected: str):
    dataset = open_dataset(Options(height=height, width=width), split)
    assert digest([dataset.load(index) for index in (0, 1, 2, 3, 17)]) == expected


def test_dice_give_the_committed_numbers():
    dice = Dice(5, 1, 2)
    assert [dice.between(1, 6) for _ in range(12)] == [2, 5, 2, 2, 5, 4, 3, 3, 2, 1, 3, 1]


def test_dice_are_fair_over_their_whole_range():
    dice = Dice(0)
    counts = np.bincount([dice.between(0, 4) for _ in range(5000)], minlength=5)
    assert counts.sum() == 5000
    assert np.abs(counts - 1000).max() < 150  # five standard deviations of a binomial count: 5 * sqrt(5000 * .2 * .8)
    values = dice.array(-3, 3, (70, 100))
    assert set(np.unique(values)) == set(range(-3, 4))
    assert abs(values.mean()) < 0.12  # five standard errors: 5 * 2 / sqrt(7000)


def test_a_scene_does_not_depend_on_what_was_rendered_before_or_on_the_size_of_the_split():
    long, short = open_dataset(Options(), "val"), open_dataset(Options(val=8), "val")
    for index in (5, 2, 7):
        assert digest([long.load(index)]) == digest([short.load(index)])


def test_splits_and_seeds_never_share_a_scene():
    options = [Options(), Options(seed=1)]
    opened = [open_dataset(o, split) for o in options for split in ("train", "val", "test")]
    digests = [digest([dataset.load(index)]) for dataset in opened for index in range(20)]
    assert len(set(digests)) == len(digests) == 120


# --- the data set ------------------------------------------------------------------------------------------------


def test_names_and_lengths_follow_the_options():
    dataset = open_dataset(Options(val=18), "val")
    assert len(dataset) == 18
    assert dataset.name(17) == dataset.load(17).name == "val/00017"
    assert dataset.files(0) == ()
    with pytest.raises(IndexError, match="which has 18"):
        dataset.load(18)


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        ({}, "vla", "no split 'vla'; did you mean 'val'"),
        ({"height": 63}, "val", r"data\.options\.height is 63, expected 64\.\.4096"),
        ({"width": 5000}, "val", r"data\.options\.width is 5000"),
        ({"seed": -1}, "val", r"data\.options\.seed is -1"),
        ({"test": 0}, "test", r"data\.options\.test is 0, expected at least 1"),
    ],
)
def test_options_that_cannot_be_rendered_are_refused(change: dict[str, int], split: str, message: str):
    with pytest.raises(DataError, match=message):
        open_dataset(dataclasses.replace(Options(), **change), split)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 201), (160, 224), (256, 96)])
def test_every_size_is_filled_with_known_classes(height: int, width: int):
    dataset = open_dataset(Options(height=height, width=width), "test")
    for index in range(6):
        sample = dataset.load(index)
        assert sample.image.shape == (height, width, 3)
        assert sample.mask.shape == (height, width)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert sample.image.flags.c_contiguous
        assert sample.mask.max() < len(CLASSES)


def test_every_class_has_its_share_of_the_pixels(scenes: list[Sample]):
    masks = np.stack([sample.mask for sample in scenes])
    percent = dict(zip(CLASSES, 100 * np.bincount(masks.ravel(), minlength=9) / masks.size, strict=True))
    expected = {"sky": (20, 36), "ground": (30, 46), "building": (10, 22), "wall": (3.5, 9), "fence": (1.8, 5)}
    expected |= {"pole": (3, 6), "sign": (1.2, 3), "ball": (1.2, 3), "ring": (1.0, 3)}
    assert {name for name in CLASSES if not expected[name][0] <= percent[name] <= expected[name][1]} == set()


def test_every_class_is_in_at_least_two_scenes_of_five(scenes: list[Sample]):
    present = {name: sum((sample.mask == k).any() for sample in scenes) for k, name in enumerate(CLASSES)}
    assert min(present.values()) >= 40


def test_images_are_neither_black_nor_blown_out(scenes: list[Sample]):
    means = [float(sample.image.mean()) for sample in scenes]
    assert min(means) > 40
    assert max(means) < 225
    assert all(sample.image.std() > 10 for sample in scenes)


# --- objects -----------------------------------------------------------------------------------------------------


def test_every_pixel_of_an_object_has_its_class_in_the_mask(scenes: list[Sample]):
    for sample in scenes:
        assert sample.instances is not None
        assert sample.instances.masks.whole().dtype == bool
        assert sample.instances.masks.whole().shape == (len(sample.instances.labels), *sample.mask.shape)
        for mask, label in zip(sample.instances.masks, sample.instances.labels, strict=True):
            assert mask.any()
            assert (sample.mask[mask] == label).all()


def test_every_countable_pixel_belongs_to_exactly_one_object(scenes: list[Sample]):
    for sample in scenes:
        assert sample.instances is not None
        countable = np.isin(sample.mask, [BUILDING, SIGN, BALL, RING])
        np.testing.assert_array_equal(sample.instances.masks.whole().sum(axis=0), countable.astype(int))


def test_boxes_are_tight_with_exclusive_ends(scenes: list[Sample]):
    for sample in scenes:
        assert sample.instances is not None
        assert sample.instances.boxes_xyxy.dtype == np.float32
        assert sample.instances.labels.dtype == np.int64
        for mask, box in zip(sample.instances.masks, sample.instances.boxes_xyxy, strict=True):
            y, x = np.nonzero(mask)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_a_scene_without_objects_has_empty_arrays_of_the_right_shape():
    empty = instances_from_ids(np.zeros((64, 96), np.uint8), [SKY])
    assert empty.masks.whole().shape == (0, 64, 96)
    assert empty.boxes_xyxy.shape == (0, 4)
    assert empty.labels.shape == (0,)


def test_a_nearer_object_hides_the_one_behind():
    canvas = Canvas(96, 128)
    canvas.new_object(SKY)
    canvas.paint(shapes.rectangle(20, 20, 40, 40), WHITE, (0, 0), canvas.new_object(WALL))
    canvas.paint(shapes.rectangle(40, 40, 40, 40), WHITE, (0, 0), canvas.new_object(BUILDING))
    ids = canvas.visible_ids()
    assert (ids[20:40, 20:40] == 2).all()
    assert (ids == 1).sum() == 20 * 20 - 10 * 10


def test_a_pixel_belongs_to_most_of_its_subpixels_and_ties_to_the_nearest():
    for pixel in itertools.product((0, 1, 2, 3), repeat=4):
        canvas = Canvas(1, 1)
        canvas.ids[:] = np.array(pixel).reshape(2, 2)
        most = max(pixel.count(value) for value in pixel)
        assert canvas.visible_ids().item() == max(value for value in pixel if pixel.count(value) == most)


def test_free_discs_and_rings_never_touch_a_sign_post(scenes: list[Sample]):
    """Otherwise nobody could tell them from a sign: no ball or ring lies in a column right above a pole's top."""
    for sample in scenes:
        toys = np.isin(sample.mask, (BALL, RING))
        posts = sample.mask == POLE
        uprights = np.stack([posts[y : y + 12].all(axis=0) for y in range(84)])  # 12 px of pole straight below
        assert not (toys[:84] & np.roll(uprights, -1, axis=0)).any()

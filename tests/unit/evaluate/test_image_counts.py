"""Counts by image add up to the scores of the whole set, and the hash is that of pixels and labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.board.masks import Masks
from edgekd.data.base import Instances, Sample
from edgekd.evaluate.boundary import BoundaryCounts
from edgekd.evaluate.image_counts import image_counts, scores
from edgekd.evaluate.image_hash import ImageHash
from edgekd.evaluate.predictions import Prediction
from edgekd.evaluate.semantic import score

CLASSES = ("a", "b", "never")


def test_counts_of_one_image_are_those_of_its_confusion_matrix() -> None:
    """Three pixels of class 0, one taken for 1; two of class 1, both right; class 2 is not there."""
    confusion = np.array([[2, 1, 0], [0, 2, 0], [0, 0, 0]])
    bands = BoundaryCounts(np.array([1, 1, 0]), np.array([2, 3, 0]))
    counts = image_counts(confusion, bands)
    assert counts.tolist() == [[2, 2, 0], [3, 2, 0], [2, 3, 0], [1, 1, 0], [2, 3, 0]]
    found = scores(counts)
    assert float(found["miou"]) == np.mean([2 / 3, 2 / 3])
    assert float(found["pixel_accuracy"]) == 4 / 5
    assert float(found["boundary_iou"]) == np.mean([1 / 2, 1 / 3])


def test_scores_of_nothing_are_nan() -> None:
    assert all(np.isnan(value) for value in scores(np.zeros((5, 3), np.uint32)).values())


def test_image_counts_of_a_split_give_its_scores() -> None:
    rng = np.random.default_rng(3)
    predictions = []
    for index in range(4):
        truth, predicted = rng.integers(0, 2, (2, 12, 16), np.uint8)
        truth[0] = 255
        predictions.append(Prediction(index, Sample(f"{index}", np.zeros((12, 16, 3), np.uint8), truth), predicted))
    result = score(CLASSES, predictions)
    assert result.image_counts is not None
    assert result.image_counts.shape == (4, 5, 3)
    found = scores(result.image_counts.sum(axis=0))
    assert {name: float(value) for name, value in found.items()} == {name: result.metrics[name] for name in found}


def hash_of(*samples: Sample) -> str:
    seen = ImageHash()
    for sample in samples:
        seen.add(sample)
    return seen.hexdigest()


def test_the_hash_is_that_of_pixels_and_labels_in_order() -> None:
    one = Sample("one", np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8))
    brighter = replace(one, image=one.image + 1)
    relabelled = replace(one, mask=one.mask + 1)
    assert hash_of(one) == hash_of(replace(one, name="copied"))
    assert len({hash_of(one), hash_of(brighter), hash_of(relabelled), hash_of(one, one), hash_of()}) == 5
    assert hash_of(one, brighter) != hash_of(brighter, one)


def test_the_hash_of_objects_is_that_of_their_boxes_classes_and_crowds() -> None:
    sample = Sample("one", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8))
    objects = Instances(
        Masks((4, 4), np.array([[0, 0, 2, 2]]), [np.ones((2, 2), bool)]),
        np.array([[0, 0, 2, 2]], np.float32),
        np.array([0]),
    )
    smaller = Masks((4, 4), np.array([[0, 0, 2, 2]]), [np.eye(2, dtype=bool)])
    variants = [
        objects,
        replace(objects, labels=np.array([1])),
        replace(objects, boxes_xyxy=np.array([[0, 0, 2, 3]], np.float32)),
        replace(objects, is_crowd=np.array([True])),
        replace(objects, masks=smaller),
    ]
    assert len({hash_of(replace(sample, instances=one)) for one in variants}) == len(variants)

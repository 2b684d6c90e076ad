"""Matches by image give COCO's average precision of any choice of the images: by hand, by the evaluator, and by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgekd.evaluate.detection import DetectionEvaluator
from edgekd.evaluate.image_scores import of_all, read_image_scores
from edgekd.evaluate.intervals import score_change_intervals, score_intervals
from edgekd.evaluate.matching import match
from edgekd.evaluate.object_matches import ObjectMatches, read_matches
from tests.unit.evaluate.test_average_precision import (
    SIZE,
    Case,
    by_pycocotools,
    found,
    objects,
    random_case,
    result,
)

BOXES = [[0, 0, 10, 10], [30, 30, 40, 40]]


def matches(cases: Sequence[Case], has_masks: bool = False) -> ObjectMatches:
    got = result(cases, has_masks=has_masks).matches
    assert got is not None
    return got


def untied(rng: np.random.Generator, has_masks: bool) -> Case:
    """Return a random case without equal scores, which have no order that another tool must follow."""
    truth, detections, size = random_case(rng, has_masks, 12)
    scores = np.sort(rng.random(len(detections.scores)).astype(np.float32))[::-1]
    return truth, replace(detections, scores=scores), size


# --- matching ---------------------------------------------------------------------------------------------------------


def test_a_detection_takes_the_free_object_that_it_covers_best() -> None:
    """The first takes object 1 (0.8); the second wants it too (0.7) and takes object 0 (0.6) at 0.50, 0.55 and 0.60."""
    hits, ignored = match(np.array([[0.2, 0.8], [0.6, 0.7]]), np.zeros(2, bool), np.zeros(2, bool))
    assert hits.tolist() == [0b1111111, 0b0000111]
    assert ignored.tolist() == [0, 0]


def test_an_object_to_be_found_comes_before_an_ignored_one_and_a_crowd_stays_free() -> None:
    crowd = np.array([True, False])
    hits, ignored = match(np.array([[0.9, 0.5], [0.9, 0.0], [0.9, 0.0]]), crowd, crowd)
    assert hits.tolist() == [0b1, 0, 0]  # the object at 0.50; the crowd above
    assert ignored.tolist() == [0b111111110, 0b111111111, 0b111111111]
    difficult = np.array([True])
    _, ignored = match(np.array([[0.9], [0.9]]), np.array([False]), difficult)
    assert ignored.tolist() == [0b111111111, 0]  # the second is a false alarm


# --- scores of all images ---------------------------------------------------------------------------------------------


def test_an_image_drawn_twice_counts_twice() -> None:
    """Image 0: its object is found. Image 1: a false alarm of higher score. Precision at the hit is 1/2; 1/3 with image 1 twice."""
    cases = [
        (objects(BOXES[:1], [0]), found(BOXES[:1], [0.8], [0]), SIZE),
        (objects(BOXES[1:], [0]), found([[60, 0, 70, 10]], [0.9], [0]), SIZE),
    ]
    images = matches(cases)
    draws = np.array([[1, 1], [1, 2], [2, 1], [2, 0], [0, 2], [0, 0]])
    # Recall 1/2 reaches the points 0.00 to 0.50 (51), 1/3 those to 0.33 (34), 2/3 those to 0.66 (67).
    expected = [51 / 101 / 2, 34 / 101 / 3, 67 / 101 * 2 / 3, 1.0, 0.0, np.nan]
    np.testing.assert_allclose(images.scores(draws)["map"], expected)
    np.testing.assert_allclose(images.scores(draws)["mar_100"], [1 / 2, 1 / 3, 2 / 3, 1.0, 0.0, np.nan])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("has_masks", [False, True])
def test_each_image_once_gives_the_scores_of_the_evaluator(has_masks: bool, seed: int) -> None:
    """With crowds, many equal scores, and with the last seeds more than 100 detections of one image."""
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, has_masks, 250 if seed > 3 else 12) for _ in range(10)]
    got = result(cases, has_masks=has_masks)
    assert got.matches is not None
    again = of_all(got.matches)
    assert set(again) == {name for name in got.metrics if not name.endswith(("small", "medium", "large"))}
    for name, value in again.items():
        assert value == pytest.approx(got.metrics[name], abs=1e-12), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_drawn_images_score_as_pycocotools_scores_them_repeated(kind: str, seed: int) -> None:
    rng = np.random.default_rng(50 + seed)
    cases = [untied(rng, kind == "segm") for _ in range(12)]
    draw = rng.multinomial(12, np.full(12, 1 / 12))
    assert draw.max() > 1
    repeated = [case for case, times in zip(cases, draw, strict=True) for _ in range(times)]
    expected = by_pycocotools(repeated, 3, kind)
    got = matches(cases, kind == "segm").scores(draw[None])
    for name, value in expected.items():
        if not name.endswith(("small", "medium", "large")):
            assert float(got[name][0]) == pytest.approx(value, abs=1e-9), name


def test_difficult_objects_are_ignored_as_the_evaluator_does() -> None:
    rng = np.random.default_rng(9)
    cases = []
    for _ in range(8):
        truth, detections, size = random_case(rng, False, 12)
        cases.append(
            (replace(truth, is_crowd=None, is_difficult=rng.random(len(truth.labels)) < 0.4), detections, size)
        )
    got = result(cases)
    assert got.matches is not None
    assert of_all(got.matches)["map"] == pytest.approx(got.metrics["map"], abs=1e-12)


def test_fewer_detections_of_an_image_count_where_the_recipe_says_so() -> None:
    evaluator = DetectionEvaluator(["a"], has_masks=False, max_detections=1)
    evaluator.update(objects(BOXES, [0, 0]), found(BOXES, [0.9, 0.8], [0, 0]), SIZE)
    got = evaluator.compute().matches
    assert got is not None
    assert of_all(got)["mar_1"] == 0.5


# --- files and intervals ----------------------------------------------------------------------------------------------


def test_matches_are_read_as_they_were_written_and_others_are_none() -> None:
    rng = np.random.default_rng(1)
    images = matches([random_case(rng, True, 12) for _ in range(5)], has_masks=True)
    arrays = images.arrays()
    again = read_image_scores(arrays)
    assert again is not None
    assert of_all(again) == of_all(images)
    for name, wrong in (
        ("map/image", arrays["map/image"] + 5),
        ("map/label", arrays["map/label"][::-1]),
        ("map/hits", arrays["map/hits"][1:]),
        ("map/objects", arrays["map/objects"][:-1]),
        ("map/ignored", arrays["map/ignored"].astype(float)),
    ):
        assert read_matches({**arrays, name: wrong}) is None, name
    assert read_matches({}) is None
    assert read_matches({name: array for name, array in arrays.items() if name != "max_detections"}) is None


def one_object_images(right: int, wrong: int) -> ObjectMatches:
    """Images of one object, found in `right` of them; no false alarms. mAP of a resample is about its share of hits."""
    hit = (objects(BOXES[:1], [0]), found(BOXES[:1], [0.9], [0]), SIZE)
    miss = (objects(BOXES[:1], [0]), found([], [], []), SIZE)
    return matches([hit] * right + [miss] * wrong)


def test_the_interval_of_the_recall_is_that_of_the_binomial_distribution() -> None:
    """B(100, 1/2): the 2.5 % quantile is 40, and 60 by symmetry. Precision is 1, so AP is the share of 101 recall points."""
    intervals = score_intervals(one_object_images(50, 50))
    assert intervals["mar_100"] == pytest.approx((0.40, 0.60), abs=0.0101)
    low, high = intervals["map"]
    assert (low, high) == pytest.approx((41 / 101, 61 / 101), abs=0.0101)


def test_the_change_is_paired_and_few_images_have_no_interval() -> None:
    images = one_object_images(30, 30)
    assert score_change_intervals(images, images)["map"] == (0.0, 0.0)
    better = score_change_intervals(images, one_object_images(40, 20))["map"]
    assert 0 < better[0] < 1 / 6 < better[1]
    assert score_intervals(one_object_images(10, 9)) == {}

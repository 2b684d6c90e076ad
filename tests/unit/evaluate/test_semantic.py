"""The evaluator adds up, and `evaluate` runs a session over a split."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.data.base import Sample
from edgekd.errors import DataError
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.evaluate.predictions import Prediction, keeping, predict_split
from edgekd.evaluate.semantic import SemanticEvaluator, SemanticResult, score
from edgekd.executors.predictions import predict_in

CLASSES = ("ground", "pole", "ring", "never")
SIZE = (20, 30)


@dataclass
class Split:
    """Samples in memory."""

    samples: list[Sample]
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        return self.samples[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def load(self, index: int) -> Sample:
        return self.samples[index]


class RedIsTheClass:
    """A session whose class map is the red channel."""

    spec = ModelSpec(
        "semantic",
        CLASSES,
        255,
        (TensorSpec("image", "uint8", (1, *SIZE, 3), "image"),),
        (TensorSpec("map", "uint8", (1, *SIZE), "class_map"),),
        Preprocess(SIZE, layout="NHWC", dtype="uint8"),
    )

    runtime: ClassVar[dict[str, object]] = {}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"map": inputs["image"][..., 0]}


def maps(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of truth (with ignored pixels) and prediction of classes 0 to 2."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 3, (count, 2, SIZE[0] // 5, SIZE[1] // 5)).astype(np.uint8)
    grown = np.kron(blocks, np.ones((1, 1, 5, 5), np.uint8))
    grown[:, 0, :4, :9] = 255
    return [(truth, prediction) for truth, prediction in grown]


def split_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    images = [np.repeat(prediction[:, :, None], 3, axis=2) for _, prediction in pairs]
    return Split([Sample(f"s{i}", image, pair[0]) for i, (image, pair) in enumerate(zip(images, pairs, strict=True))])


def assert_same(one: SemanticResult, other: SemanticResult) -> None:
    for field in fields(SemanticResult):
        if field.name == "image_counts":
            continue  # None where evaluators were merged
        if field.name == "confusion":
            np.testing.assert_array_equal(one.confusion, other.confusion)
        else:
            assert getattr(one, field.name) == getattr(other, field.name)


def counted(pairs: list[tuple[np.ndarray, np.ndarray]]) -> SemanticEvaluator:
    evaluator = SemanticEvaluator(CLASSES)
    for truth, prediction in pairs:
        evaluator.update(truth, prediction)
    return evaluator


def test_metrics_are_those_that_are_defined_and_lie_between_0_and_1() -> None:
    result = counted(maps(4)).compute()
    assert list(result.metrics) == [name for name in DEFINITIONS if not re.search("(?<!tri)map|mar_", name)]
    assert all(0 <= value <= 1 for value in result.metrics.values())


def test_a_perfect_prediction_scores_one_and_names_the_absent_class() -> None:
    result = counted([(truth, np.where(truth == 255, 0, truth).astype(np.uint8)) for truth, _ in maps(3)]).compute()
    assert result.metrics["miou"] == result.metrics["pixel_accuracy"] == result.metrics["trimap_miou_3px"] == 1
    assert result.metrics["spurious_components"] == result.metrics["missing_components"] == 0
    assert result.absent_classes == ["never"]
    assert result.iou_per_class == {"ground": 1.0, "pole": 1.0, "ring": 1.0, "never": None}


def test_figures_by_hand() -> None:
    truth = np.zeros(SIZE, np.uint8)
    truth[:, 10:] = 1
    prediction = np.zeros(SIZE, np.uint8)
    prediction[:, 12:] = 1
    prediction[5:7, 2:4] = 2
    result = counted([(truth, prediction)]).compute()
    # 20 rows. Ground: truth 200, predicted 240 - 4. Pole: truth 400, predicted 360. Ring: 4 predicted.
    assert result.iou_per_class["ground"] == pytest.approx(196 / (200 + 236 - 196))
    assert result.iou_per_class["pole"] == pytest.approx(360 / 400)
    assert result.iou_per_class["ring"] == 0
    assert result.metrics["pixel_accuracy"] == pytest.approx((600 - 40 - 4) / 600)
    # The trimap: columns 7 to 12. Ground 3 x 20 all right; pole 3 x 20 of which 2 x 20 were called ground.
    assert result.metrics["trimap_miou_3px"] == pytest.approx((60 / 100 + 20 / 60) / 2)
    assert result.counts == {
        "components_predicted": 3,
        "components_spurious": 1,
        "components_true": 2,
        "components_missing": 0,
    }
    assert result.metrics["spurious_components"] == pytest.approx(1 / 3)
    assert result.metrics["missing_components"] == 0


def test_image_by_image_equals_the_merge_of_two_parts_in_another_order() -> None:
    pairs = maps(5)
    late, early = counted(pairs[3:]), counted(pairs[:3])
    late.merge(early)
    late.merge(SemanticEvaluator(CLASSES))
    assert_same(late.compute(), counted(pairs).compute())


def test_scores_are_of_the_set_and_not_means_of_images() -> None:
    small, big = np.full(SIZE, 255, np.uint8), np.zeros(SIZE, np.uint8)
    small[0, :10] = 0
    wrong, right = np.ones(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    result = counted([(small, wrong), (big, right)]).compute()
    assert result.metrics["pixel_accuracy"] == pytest.approx(600 / 610)
    assert result.num_images == 2


def test_a_metric_that_nothing_was_counted_for_is_absent() -> None:
    flat = np.zeros(SIZE, np.uint8)
    assert "trimap_miou_3px" not in counted([(flat, flat)]).compute().metrics


def test_no_labelled_pixel_is_refused() -> None:
    with pytest.raises(DataError, match="no labelled pixel in 1 images"):
        counted([(np.full(SIZE, 255, np.uint8), np.zeros(SIZE, np.uint8))]).compute()
    with pytest.raises(DataError, match="no labelled pixel in 0 images"):
        SemanticEvaluator(CLASSES).compute()


def test_the_score_is_of_the_predictions_of_the_session() -> None:
    pairs = maps(9)
    steps: list[tuple[int, int]] = []
    kept: dict[int, np.ndarray] = {}
    predictions = predict_split(partial(predict_in, RedIsTheClass()), split_of(pairs), range(9))
    result = score(CLASSES, keeping(predictions, [7, 2], kept, lambda *s: steps.append(s), 9))
    assert_same(result, counted(pairs).compute())
    assert sorted(kept) == [2, 7]
    np.testing.assert_array_equal(kept[7], pairs[7][1])
    assert steps == [(i, 9) for i in range(1, 10)]


def test_only_the_chosen_indices_are_predicted() -> None:
    pairs = maps(6)
    predictions = list(predict_split(partial(predict_in, RedIsTheClass()), split_of(pairs), [4, 1]))
    assert [one.index for one in predictions] == [4, 1]
    assert_same(score(CLASSES, predictions), counted([pairs[4], pairs[1]]).compute())


def test_predictions_of_elsewhere_are_scored_without_a_session() -> None:
    pairs = maps(2)
    split = split_of(pairs)
    predictions = [Prediction(i, split.load(i), predicted) for i, (_, predicted) in enumerate(pairs)]
    assert_same(score(CLASSES, predictions), counted(pairs).compute())


def test_label_outside_the_classes_names_the_sample() -> None:
    pairs = maps(3)
    pairs[1][0][10, 10] = 37
    with pytest.raises(DataError, match="s1: truth has label 37, expected 0 to 3"):
        score(CLASSES, predict_split(partial(predict_in, RedIsTheClass()), split_of(pairs), range(3)))

"""The evaluate stage: what it keeps of the pictured images."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from edgekd.board.detection import Detections, Selection
from edgekd.board.masks import Masks
from edgekd.board.run_masks import unpacked
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.data.base import Sample
from edgekd.evaluate import stage
from edgekd.evaluate.predictions import predict_split
from edgekd.executors.predictions import predict_in


def test_only_masks_that_are_shown_are_kept_as_run_lengths() -> None:
    """Pixels of a 1x4 image: 0 and 1 of the first object, 1 and 2 of the second; the third has too low a score."""
    corners = np.array([[0, 0, 2, 1], [1, 0, 3, 1], [2, 0, 4, 1]])
    masks = Masks((1, 4), corners, [np.ones((1, 2), bool)] * 3)
    found = Detections(corners.astype(np.float32), np.array([0.9, 0.3, 0.1]), np.array([1, 0, 1]), masks)
    arrays = stage._pictured_objects(7, found)
    assert arrays["7/mask_runs"].tolist() == [0, 2, 2, 1, 2, 1]
    assert arrays["7/mask_run_counts"].tolist() == [3, 3]
    drawn = unpacked(arrays["7/mask_runs"], arrays["7/mask_run_counts"], (1, 4))
    assert drawn.whole().tolist() == [[[1, 1, 0, 0]], [[0, 1, 1, 0]]]
    assert arrays["7/labels"].tolist() == [1, 0]


class Found:
    """A session that finds 120 objects in every image; implements what scoring needs of one."""

    count = 120
    spec = ModelSpec(
        task="detection",
        classes=("a",),
        ignore_index=255,
        inputs=(TensorSpec("image", "float32", (1, 3, 8, 130), "image"),),
        outputs=(
            TensorSpec("found_boxes", "float32", (1, count, 4), "found_boxes"),
            TensorSpec("found_scores", "float32", (1, count), "found_scores"),
            TensorSpec("found_labels", "int32", (1, count), "found_labels"),
        ),
        preprocess=Preprocess((8, 130)),
    )

    runtime: ClassVar[dict[str, object]] = {}

    def infer(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        lefts = np.arange(self.count, dtype=np.float32)
        boxes = np.stack([lefts, 0 * lefts, lefts + 1, 0 * lefts + 4], axis=1)
        scores = np.linspace(1, 0.5, self.count, dtype=np.float32)
        return {
            "found_boxes": boxes[None],
            "found_scores": scores[None],
            "found_labels": np.zeros((1, self.count), np.int32),
        }


class OneImage:
    classes = ("a",)

    def load(self, index: int) -> Sample:
        return Sample("one", np.zeros((8, 130, 3), np.uint8), np.full((8, 130), 255, np.uint8))


@pytest.mark.parametrize(("most", "expected"), [(None, 100), (4, 4), (110, 110), (300, 120)])
def test_scoring_takes_as_many_detections_as_the_recipe_says(most: int | None, expected: int) -> None:
    selection = None if most is None else Selection.of_most(most)
    (one,) = predict_split(partial(predict_in, Found(), selection=selection), OneImage(), [0])  # type: ignore[arg-type]
    assert len(one.result.scores) == expected
    assert (np.diff(one.result.scores) < 0).all()


def test_more_detections_decode_more_candidates() -> None:
    assert Selection.of_most(100) == Selection()
    assert Selection.of_most(300) == Selection(most=300, candidates=3000)

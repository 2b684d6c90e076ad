"""The evaluate stage: what it keeps of the pictured images."""

from __future__ import annotations

import numpy as np

from edgekd.board.detection import Detections
from edgekd.board.masks import Masks
from edgekd.data.object_masks import unpacked
from edgekd.evaluate import stage


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

"""The evaluate stage: what it keeps of the pictured images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.board.detection import Detections
from edgekd.board.masks import Masks
from edgekd.evaluate import stage


def test_only_masks_that_are_shown_are_made_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = np.array([[0, 0, 2, 1], [1, 0, 3, 1], [2, 0, 4, 1]])
    masks = Masks((1, 4), corners, [np.ones((1, 2), bool)] * 3)
    found = Detections(corners.astype(np.float32), np.array([0.9, 0.3, 0.1]), np.array([1, 0, 1]), masks)
    made: list[int] = []
    one_of = Masks.__getitem__
    monkeypatch.setattr(Masks, "__getitem__", lambda masks, number: made.append(number) or one_of(masks, number))
    arrays = stage._pictured_objects(7, found)
    assert made == [0, 1]
    bits = np.unpackbits(arrays["7/mask_bits"], axis=2, count=4)
    assert bits.tolist() == [[[1, 1, 0, 0]], [[0, 1, 1, 0]]]
    assert arrays["7/labels"].tolist() == [1, 0]

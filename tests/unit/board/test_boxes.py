"""Areas and overlaps of boxes, worked out by hand."""

from __future__ import annotations

import numpy as np

from edgekd.board.boxes import areas, box_iou, intersections

BOXES = np.array([[0, 0, 4, 2], [10, 10, 10, 12]], np.float32)
OTHERS = np.array([[2, 1, 6, 3], [0, 0, 4, 2], [4, 0, 8, 2], [20, 20, 20, 20]], np.float32)


def test_areas_and_intersections() -> None:
    assert areas(BOXES).tolist() == [8, 0]
    assert intersections(BOXES, OTHERS).tolist() == [[2, 8, 0, 0], [0, 0, 0, 0]]


def test_iou_is_the_share_of_the_union_and_0_where_both_are_empty() -> None:
    np.testing.assert_allclose(box_iou(BOXES, OTHERS), [[2 / 14, 1, 0, 0], [0, 0, 0, 0]], rtol=1e-6)

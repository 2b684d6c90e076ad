"""Masks that the learning curve scores: whole ones, thinned where the image is large."""

from __future__ import annotations

import numpy as np

from edgekd.board.run_masks import tight_masks
from edgekd.train.callbacks import MAX_CURVE_SIDE, _whole


def test_masks_of_small_images_are_whole_and_of_large_ones_thinned() -> None:
    small = np.random.default_rng(0).random((3, 20, MAX_CURVE_SIDE)) < 0.5
    np.testing.assert_array_equal(_whole(tight_masks(small)), small)
    large = np.zeros((1, 5, 2 * MAX_CURVE_SIDE + 1), bool)
    large[0, 3:, ::3] = True
    thinned = _whole(tight_masks(large))
    assert thinned is not None
    np.testing.assert_array_equal(thinned, large[:, ::3, ::3])
    assert _whole(None) is None

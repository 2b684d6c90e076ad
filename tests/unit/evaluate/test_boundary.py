"""Boundary IoU and the trimap band, by hand and against slow definitions written down once more."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekd.evaluate.boundary import band_width, boundary_band, boundary_counts, trimap_band


def random_maps(seed: int, shape: tuple[int, int] = (24, 31), classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return truth with ignored pixels and a prediction, both of blocks with ragged edges."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (2, shape[0] // 4 + 1, shape[1] // 4 + 1)).astype(np.uint8)
    maps = np.kron(blocks, np.ones((1, 4, 4), np.uint8))[:, : shape[0], : shape[1]].copy()
    speckled = rng.random(maps.shape) < 0.05
    maps[speckled] = rng.integers(0, classes, speckled.sum())
    truth, prediction = maps
    truth[rng.random(shape) < 0.1] = 255
    truth[5:9, 3:20] = 255
    return truth, prediction


def reference_band(mask: np.ndarray, width_px: int) -> np.ndarray:
    """Return boundary-iou-api's mask_to_boundary."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width_px)
    return mask & (eroded[1:-1, 1:-1] == 0)


def brute_force_band(mask: np.ndarray, width_px: int) -> np.ndarray:
    """Return the mask's pixels with a pixel outside mask or image at most `width_px` away, pixel by pixel."""
    height, width = mask.shape
    band = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            window = [
                0 <= v < height and 0 <= u < width and mask[v, u]
                for v in range(y - width_px, y + width_px + 1)
                for u in range(x - width_px, x + width_px + 1)
            ]
            band[y, x] = mask[y, x] and not all(window)
    return band


def test_band_width_is_two_percent_of_the_diagonal_and_at_least_one() -> None:
    assert band_width(360, 480) == 12  # diagonal 600
    assert band_width(1024, 2048) == 46  # 2289.7 -> 45.8
    assert band_width(3, 4) == 1


def test_band_of_a_square_is_its_rim() -> None:
    class_map = np.zeros((7, 7), np.uint8)
    class_map[1:6, 1:6] = 1
    band = boundary_band(class_map, 1)
    inner = np.zeros((7, 7), bool)
    inner[2:5, 2:5] = True
    np.testing.assert_array_equal(band, ~inner)  # class 0 is one pixel wide, all of it band


def test_frame_counts_as_contour() -> None:
    band = boundary_band(np.zeros((5, 6), np.uint8), 2)
    assert band.sum() == 5 * 6 - 1 * 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width_px", [1, 2, 5])
def test_one_filter_for_all_classes_equals_erosion_class_by_class(seed: int, width_px: int) -> None:
    truth, _ = random_maps(seed)
    band = boundary_band(truth, width_px)
    for label in (0, 1, 2, 3, 255):
        mask = truth == label
        np.testing.assert_array_equal(band & mask, reference_band(mask, width_px))
        np.testing.assert_array_equal(band & mask, brute_force_band(mask, width_px))


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_bands_class_by_class(seed: int) -> None:
    truth, prediction = random_maps(seed, (70, 90))  # diagonal 114: two pixels wide
    counts = boundary_counts(truth, prediction, 5)
    for label in range(5):
        true = reference_band(truth == label, 2) & (truth != 255)
        predicted = reference_band(prediction == label, 2) & (truth != 255)
        assert counts.intersections[label] == (true & predicted).sum()
        assert counts.unions[label] == (true | predicted).sum()


def test_boundary_counts_by_hand() -> None:
    # 5 x 5, band 1 px. Truth: class 1 in columns 0-3, class 0 in column 4; prediction: class 1 everywhere.
    truth = np.ones((5, 5), np.uint8)
    truth[:, 4] = 0
    counts = boundary_counts(truth, np.ones((5, 5), np.uint8), 3)
    # Class 1: truth 20 - inner 3x2 = 14; prediction 25 - inner 3x3 = 16. Common: columns 0-3 of the prediction's
    # frame are 5 + 2 + 2 + 2 = 11 (column 3: rows 0 and 4), all of them in the truth's band.
    assert counts.intersections.tolist() == [0, 11, 0]
    assert counts.unions.tolist() == [5, 14 + 16 - 11, 0]


def test_equal_maps_have_equal_bands() -> None:
    truth, _ = random_maps(9)
    counts = boundary_counts(truth, truth, 4)
    np.testing.assert_array_equal(counts.intersections, counts.unions)


def test_trimap_band_is_three_pixels_on_either_side() -> None:
    truth = np.zeros((2, 20), np.uint8)
    truth[:, 10:] = 4
    assert np.flatnonzero(trimap_band(truth, 3)[0]).tolist() == [7, 8, 9, 10, 11, 12]


def test_trimap_band_has_no_contour_against_ignored_pixels_or_the_frame() -> None:
    truth = np.zeros((6, 20), np.uint8)
    truth[:, 10:13] = 255
    assert not trimap_band(truth, 3).any()


@pytest.mark.parametrize("seed", range(3))
def test_trimap_band_is_the_pixels_with_another_class_within_reach(seed: int) -> None:
    truth, _ = random_maps(seed)
    expected = np.zeros(truth.shape, bool)
    for y, x in np.ndindex(*truth.shape):
        window = truth[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        expected[y, x] = truth[y, x] != 255 and ((window != truth[y, x]) & (window != 255)).any()
    np.testing.assert_array_equal(trimap_band(truth, 3), expected)

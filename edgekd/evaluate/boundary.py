"""Quality at the contours: semantic Boundary IoU and the trimap band; pure functions.

Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, and
boundary-iou-api utils/boundary_utils.py (mask minus its erosion); per class instead of per object, summed over the set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# The band's width as a share of the image diagonal. Source: boundary-iou-api, dilation_ratio.
BAND_RATIO = 0.02


@dataclass(frozen=True)
class BoundaryCounts:
    """Pixels per class (K,) int64: in both bands, and in at least one of them."""

    intersections: np.ndarray
    unions: np.ndarray


def band_width(height: int, width: int) -> int:
    """Return the width in pixels of Boundary IoU's band: `max(1, round(0.02 * diagonal))` of the image."""
    return max(1, round(BAND_RATIO * math.hypot(height, width)))


def boundary_band(class_map: np.ndarray, width_px: int) -> np.ndarray:
    """Return the pixels (H, W) bool that `mask - erode(mask)` keeps, for the masks of all classes at once.

    A pixel is in the band of its own class when the square of `width_px` around it leaves the class or the image:
    `width_px` erosions with 3x3 ones after padding with zeros. That is so where the smallest and the largest label in
    the square differ, the frame counting as different from everything; so two filters serve any number of classes.
    """
    lowest, highest = _lowest(class_map, width_px, beyond=0), _highest(class_map, width_px, beyond=255)
    return np.asarray(lowest != highest)


def boundary_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = 255
) -> BoundaryCounts:
    """Return the band pixels of one image, class maps (H, W) uint8.

    Ignored pixels are a region like any other when the bands are made, then leave the bands of truth and prediction.
    """
    width_px = band_width(*truth.shape)
    kept = truth != ignore_index
    true_band = boundary_band(truth, width_px) & kept
    predicted_band = boundary_band(prediction, width_px) & kept
    both = true_band & predicted_band & (truth == prediction)
    in_truth, in_prediction, intersections = (
        np.bincount(labels[band], minlength=num_classes)
        for labels, band in ((truth, true_band), (prediction, predicted_band), (truth, both))
    )
    return BoundaryCounts(intersections, in_truth + in_prediction - intersections)


def trimap_band(truth: np.ndarray, radius_px: int, ignore_index: int = 255) -> np.ndarray:
    """Return the labelled pixels (H, W) bool with a pixel of another class at most `radius_px` away (Chebyshev).

    Contours against ignored pixels and the frame are left out.
    """
    kept = truth != ignore_index
    lowest = _lowest(np.where(kept, truth, np.uint8(255)), radius_px, beyond=255)
    highest = _highest(np.where(kept, truth, np.uint8(0)), radius_px, beyond=0)
    return (lowest < highest) & kept


def _lowest(values: np.ndarray, radius: int, beyond: int) -> np.ndarray:
    """Return the minimum of each square of 2 radius + 1 pixels; `beyond` is the value outside the image."""
    return _squares(values, radius, np.minimum, beyond)


def _highest(values: np.ndarray, radius: int, beyond: int) -> np.ndarray:
    """Return the maximum of each square of 2 radius + 1 pixels; `beyond` is the value outside the image."""
    return _squares(values, radius, np.maximum, beyond)


def _squares(values: np.ndarray, radius: int, reduce: np.ufunc, beyond: int) -> np.ndarray:
    values = np.pad(values, radius, constant_values=beyond)
    for is_row in (True, False):
        size = 1  # of the windows whose extremes `values` holds: doubled until it is that of the squares
        while size < 2 * radius + 1:
            step = min(size, 2 * radius + 1 - size)
            pair = (values[:-step], values[step:]) if is_row else (values[:, :-step], values[:, step:])
            values = reduce(*pair)
            size += step
    return values

"""Connectivity: spurious and missing connected regions; pure functions.

A component is a 4-connected region of one class. A predicted one may run through ignored pixels, which are then not
counted as its pixels: cutting it there would make splinters that the network did not predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A component that agrees with the other map on less than this share of its pixels has no counterpart there.
MIN_OVERLAP = 0.1
# Components with fewer pixels are neither counted nor judged: in hand-drawn masks they are slips.
MIN_AREA_PX = 4


@dataclass(frozen=True)
class ComponentCounts:
    """Numbers of components: predicted, of those spurious; true, of those missing. Each (K,) int64, by class."""

    predicted: np.ndarray
    spurious: np.ndarray
    true: np.ndarray
    missing: np.ndarray


def component_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = 255
) -> ComponentCounts:
    """Return the components of one image, class maps (H, W) uint8.

    Only labelled pixels count, and only components with at least MIN_AREA_PX of them. A predicted one is spurious when
    less than MIN_OVERLAP of its pixels have its class in the truth; a true one is missing when less than MIN_OVERLAP
    of its pixels were predicted as its class.
    """
    kept = truth != ignore_index
    agree = kept & (truth == prediction)
    predicted, spurious = _components(prediction, kept, agree, num_classes)
    true, missing = _components(truth, kept, agree, num_classes)
    return ComponentCounts(predicted, spurious, true, missing)


def label_components(class_map: np.ndarray) -> tuple[int, np.ndarray]:
    """Return (N, labels): the 4-connected regions of equal class, numbered from 1 to N, (H, W) int32.

    All classes at once: on a grid of double size each pixel is set, and so is the gap between two equal neighbours.
    """
    import cv2

    height, width = class_map.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[::2, 1::2] = class_map[:, :-1] == class_map[:, 1:]
    grid[1::2, ::2] = class_map[:-1] == class_map[1:]
    count, labels = cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)
    return count - 1, np.ascontiguousarray(labels[::2, ::2])


def _components(
    class_map: np.ndarray, kept: np.ndarray, agree: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return per class (K,) the number of counted components, and of those without a counterpart."""
    count, labels = label_components(class_map)
    areas = np.bincount(labels[kept], minlength=count + 1)
    agreeing = np.bincount(labels[agree], minlength=count + 1)
    classes = np.zeros(count + 1, np.uint8)
    classes[labels] = class_map
    counts = (areas >= MIN_AREA_PX) & (classes < num_classes)
    lost = counts & (agreeing < MIN_OVERLAP * areas)
    return np.bincount(classes[counts], minlength=num_classes), np.bincount(classes[lost], minlength=num_classes)

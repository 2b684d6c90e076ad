"""Scores class maps against labels: additive counts per image, ratios once over the whole set."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from edgekd.board.installation import install
from edgekd.data.base import IGNORE_INDEX
from edgekd.errors import DataError, UserError
from edgekd.evaluate.boundary import BoundaryCounts, boundary_counts, trimap_band
from edgekd.evaluate.confusion import (
    confusion_matrix,
    iou_per_class,
    mean_of_defined,
    miou,
    pixel_accuracy,
    ratio,
)
from edgekd.evaluate.connectivity import ComponentCounts, component_counts
from edgekd.evaluate.definitions import TRIMAP_RADIUS_PX
from edgekd.evaluate.image_counts import image_counts
from edgekd.evaluate.predictions import Prediction

_BEHIND = 2  # predictions that are counted while the network runs


@dataclass(frozen=True)
class SemanticCounts:
    """Counts of some images; counts of two sets add up to those of the union.

    `confusion` and `trimap` are (K, K) int64 confusion matrices, of all labelled pixels and of the trimap band.
    """

    num_images: int
    confusion: np.ndarray
    trimap: np.ndarray
    boundary: BoundaryCounts
    components: ComponentCounts

    def __add__(self, other: SemanticCounts) -> SemanticCounts:
        ours, theirs = self.components, other.components
        return SemanticCounts(
            self.num_images + other.num_images,
            self.confusion + other.confusion,
            self.trimap + other.trimap,
            BoundaryCounts(
                self.boundary.intersections + other.boundary.intersections,
                self.boundary.unions + other.boundary.unions,
            ),
            ComponentCounts(
                ours.predicted + theirs.predicted,
                ours.spurious + theirs.spurious,
                ours.true + theirs.true,
                ours.missing + theirs.missing,
            ),
        )


@dataclass(frozen=True)
class SemanticResult:
    """Scores of a set of images.

    metrics: fractions in [0, 1] by the names in `definitions.DEFINITIONS`; one that nothing was counted for
        (boundaries in images of one class, say) is absent.
    iou_per_class, boundary_iou_per_class: by class name; None where the class has no pixel to count.
    counts: the numbers of components behind the connectivity metrics, over all classes.
    absent_classes: classes in neither labels nor predictions, which the means leave out.
    confusion: (K, K) int64, rows truth, columns prediction.
    image_counts: (N, 5, K) uint32, see `image_counts.py`; None where only sums are known.
    """

    metrics: dict[str, float]
    iou_per_class: dict[str, float | None]
    boundary_iou_per_class: dict[str, float | None]
    counts: dict[str, int]
    absent_classes: list[str]
    num_images: int
    confusion: np.ndarray
    image_counts: np.ndarray | None = None


def score(classes: Sequence[str], predictions: Iterable[Prediction[np.ndarray]]) -> SemanticResult:
    """Score the class maps of a split, each at its image's own size; counting runs in a thread beside the network.

    Args:
        classes: those of the data set and of the network.
        predictions: predictions of the images to score, see `predict_split`.

    Raises:
        DataError: a prediction has another size than its mask, a label is outside the classes, or no pixel has a label.
        UserError: OpenCV is not installed.
    """
    _require_opencv()
    evaluator = SemanticEvaluator(classes)
    images: list[np.ndarray] = []
    for counts in _counted(evaluator, predictions):
        evaluator.add(counts)
        images.append(image_counts(counts.confusion, counts.boundary))
    return replace(evaluator.compute(), image_counts=np.stack(images))


def _counted(evaluator: SemanticEvaluator, predictions: Iterable[Prediction[np.ndarray]]) -> Iterator[SemanticCounts]:
    with ThreadPoolExecutor(1) as pool:
        counting: deque[Future[SemanticCounts]] = deque()
        for prediction in predictions:
            counting.append(pool.submit(_count, evaluator, prediction))
            if len(counting) > _BEHIND:
                yield counting.popleft().result()
        for future in counting:
            yield future.result()


class SemanticEvaluator:
    """Collects counts image by image, in any order; evaluators of parts of a set can be merged."""

    def __init__(self, classes: Sequence[str], ignore_index: int = IGNORE_INDEX) -> None:
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        self.total: SemanticCounts | None = None

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image, class maps (H, W) uint8.

        Raises:
            DataError: the maps differ in size, or hold a label outside the classes.
        """
        self.add(self.count(truth, prediction))

    def count(self, truth: np.ndarray, prediction: np.ndarray) -> SemanticCounts:
        """Return the counts of one image without adding them; safe in threads."""
        classes, ignored = len(self.classes), self.ignore_index
        in_band = np.where(trimap_band(truth, TRIMAP_RADIUS_PX, ignored), truth, np.uint8(ignored))
        return SemanticCounts(
            1,
            confusion_matrix(truth, prediction, classes, ignored),
            confusion_matrix(in_band, prediction, classes, ignored),
            boundary_counts(truth, prediction, classes, ignored),
            component_counts(truth, prediction, classes, ignored),
        )

    def add(self, counts: SemanticCounts) -> None:
        """Add counts of other images with the same classes."""
        self.total = counts if self.total is None else self.total + counts

    def merge(self, other: SemanticEvaluator) -> None:
        """Add what another evaluator has counted."""
        if other.total is not None:
            self.add(other.total)

    def compute(self) -> SemanticResult:
        """Return the scores of everything counted so far.

        Raises:
            DataError: not one labelled pixel was counted.
        """
        total = self.total
        if total is None or not total.confusion.any():
            seen = 0 if total is None else total.num_images
            raise DataError(
                f"no labelled pixel in {seen} images; there is nothing to score, check the split and its masks"
            )
        iou = iou_per_class(total.confusion)
        boundary_iou = ratio(total.boundary.intersections, total.boundary.unions)
        components = _component_sums(total.components)
        metrics = {
            "miou": miou(total.confusion),
            "pixel_accuracy": pixel_accuracy(total.confusion),
            "boundary_iou": mean_of_defined(boundary_iou),
            f"trimap_miou_{TRIMAP_RADIUS_PX}px": miou(total.trimap),
            "spurious_components": float(ratio(components["components_spurious"], components["components_predicted"])),
            "missing_components": float(ratio(components["components_missing"], components["components_true"])),
        }
        return SemanticResult(
            metrics={name: value for name, value in metrics.items() if not np.isnan(value)},
            iou_per_class=self._by_class(iou),
            boundary_iou_per_class=self._by_class(boundary_iou),
            counts=components,
            absent_classes=[name for name, value in self._by_class(iou).items() if value is None],
            num_images=total.num_images,
            confusion=total.confusion,
        )

    def _by_class(self, values: np.ndarray) -> dict[str, float | None]:
        return {
            name: None if np.isnan(value) else float(value) for name, value in zip(self.classes, values, strict=True)
        }


def _component_sums(components: ComponentCounts) -> dict[str, int]:
    return {f"components_{name}": int(values.sum()) for name, values in vars(components).items()}


def _count(evaluator: SemanticEvaluator, prediction: Prediction[np.ndarray]) -> SemanticCounts:
    try:
        return evaluator.count(prediction.sample.mask, prediction.result)
    except DataError as exc:
        raise DataError(f"{prediction.sample.name}: {exc}") from exc


def _require_opencv() -> None:
    try:
        import cv2  # noqa: F401
    except ImportError as exc:
        raise UserError(f"the boundary metrics need OpenCV, which is not installed; {install('evaluate')}") from exc

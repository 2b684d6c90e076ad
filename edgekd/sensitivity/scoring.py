"""The metric of a budget on the selection images, for a network wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.board.detection import Selection
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Budget, Recipe
from edgekd.core.task_metrics import TASKS, metric_title
from edgekd.data.base import DenseDataset
from edgekd.data.splits import open_split
from edgekd.errors import DataError
from edgekd.evaluate import detection, semantic
from edgekd.evaluate.confusion import confusion_matrix, miou
from edgekd.evaluate.predictions import predict_split
from edgekd.executors.predictions import predict_images
from edgekd.quantize.stage import selection_indices

Predict = Callable[[Iterable[np.ndarray]], Iterator[Any]]


@dataclass(frozen=True)
class SelectionImages:
    """The selection images of a recipe, and the metric that its budget limits.

    dataset: the training split.
    indices: of the images.
    metric: its name.
    most: detections per image that are scored.
    """

    task: str
    dataset: DenseDataset
    indices: Sequence[int]
    metric: str
    most: int

    @staticmethod
    def of(recipe: Recipe, budget: Budget, calibration: int | None = None) -> SelectionImages:
        """Return those of a recipe with the sections `data`, `quantize` and `evaluate`.

        Args:
            recipe: the recipe.
            budget: its budget.
            calibration: images that calibration uses at most; None: `quantize.images`.

        Raises:
            DataError: calibration uses every training image.
        """
        dataset = SelectionImages.dataset_of(recipe)
        used = recipe.quantize.images if calibration is None else calibration
        indices = selection_indices(len(dataset), used, budget.images, recipe.seed)
        metric = budget.metric or TASKS[recipe.task].metric
        return SelectionImages(recipe.task, dataset, indices, metric, recipe.evaluate.max_detections)

    @staticmethod
    def dataset_of(recipe: Recipe) -> DenseDataset:
        """Open the training split."""
        return open_split(recipe, recipe.data.train)

    @property
    def selection(self) -> Selection:
        """Which objects of a detector are scored."""
        return Selection.of_most(self.most)

    @property
    def names(self) -> list[str]:
        """Names of the images."""
        return [self.dataset.name(index) for index in self.indices]

    def score_of(self, artifact: Artifact) -> float:
        """Return the metric of an exported network or an engine, on its board; errors as `score`."""
        return self.score(lambda images: predict_images(images, artifact, self.selection))

    def score(self, predict: Predict) -> float:
        """Return the metric of a network, a fraction.

        Args:
            predict: takes images (H, W, 3) and gives class maps or detections in the same order.

        Raises:
            DataError: the metric has no value on these images.
        """
        predictions = predict_split(predict, self.dataset, self.indices)
        if self.metric == "miou":  # the other metrics of segmenters take longer than the network
            classes = len(self.dataset.classes)
            matrix = np.zeros((classes, classes), np.int64)
            for one in predictions:
                matrix += confusion_matrix(one.sample.mask, one.result, classes)
            value = miou(matrix)
        elif self.task == "semantic":
            value = semantic.score(self.dataset.classes, predictions).metrics.get(self.metric, float("nan"))
        else:
            has_masks = self.task == "instance"
            result = detection.score(self.dataset.classes, predictions, has_masks, None, self.most)
            value = result.metrics.get(self.metric, float("nan"))
        if np.isnan(value):
            raise DataError(
                f"quantize.budget: {self.metric} has no value on {len(self.indices)} selection images; raise "
                "quantize.budget.images"
            )
        return value


def drop_text(drop: float, metric: str, floats: int, layers: int) -> str:
    """Return the drop of a metric in points, and how many layers are in float."""
    return f"{change_text(drop)} points {metric_title(metric)} with {floats} of {layers} layers in float"


def change_text(drop: float) -> str:
    """Return a drop in points as `loses 0.20` or `gains 0.20`."""
    return f"gains {points_text(-drop)}" if drop < 0 else f"loses {points_text(drop)}"


def points_text(fraction: float) -> str:
    """Return a fraction in points with two decimals; one that they would hide has more."""
    return f"{100 * fraction:.2f}" if abs(fraction) >= 5e-5 or fraction == 0 else f"{100 * fraction:.1g}"

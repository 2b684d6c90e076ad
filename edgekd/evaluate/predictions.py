"""The predictions of a network on a split, image by image; the evaluators score them wherever they come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from edgekd.board.detection import Detections
from edgekd.core.progress import Progress
from edgekd.data.base import DenseDataset, Sample

# A class map (H, W) uint8 of a segmenter, or the objects of a detector, at the image's size.
ResultT = TypeVar("ResultT", np.ndarray, Detections)
_AHEAD = 2  # samples that are read while the network runs


@dataclass(frozen=True)
class Prediction(Generic[ResultT]):
    """A sample of a split, its index there, and what the network predicts for it."""

    index: int
    sample: Sample
    result: ResultT


def predict_split(
    predict: Callable[[Iterable[np.ndarray]], Iterator[ResultT]], dataset: DenseDataset, indices: Sequence[int]
) -> Generator[Prediction[ResultT], None, None]:
    """Yield the prediction for each index, in order; samples are read ahead in a thread.

    Args:
        predict: takes images and gives the results in the same order; it may read many images before it gives one.
        dataset: the split.
        indices: indices of the samples.

    Raises:
        DataError: a sample cannot be read.
    """
    read: deque[tuple[int, Sample]] = deque()

    def images() -> Iterator[np.ndarray]:
        for index, sample in _read_ahead(dataset, indices):
            read.append((index, sample))
            yield sample.image

    for result in predict(images()):
        yield Prediction(*read.popleft(), result)


def _read_ahead(dataset: DenseDataset, indices: Sequence[int]) -> Iterator[tuple[int, Sample]]:
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        for index in indices:
            waiting.append((index, pool.submit(dataset.load, index)))
            if len(waiting) > _AHEAD:
                index, sample = waiting.popleft()
                yield index, sample.result()
        for index, sample in waiting:
            yield index, sample.result()


def keeping(
    predictions: Iterable[Prediction[ResultT]],
    indices: Collection[int],
    kept: dict[int, ResultT],
    progress: Progress,
    total: int,
) -> Iterator[Prediction[ResultT]]:
    """Yield predictions unchanged; put the results of some `indices` into `kept`, and report progress out of `total`."""
    for done, prediction in enumerate(predictions, 1):
        if prediction.index in indices:
            kept[prediction.index] = prediction.result
        yield prediction
        progress(done, total)

"""The predictions of a network on a split, image by image; the evaluators score them wherever they come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from edgekd.board.detection import Detections, Selection
from edgekd.board.postprocess import Predictor
from edgekd.board.session import Session
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
    session: Session, dataset: DenseDataset, indices: Sequence[int], selection: Selection | None = None
) -> Iterator[Prediction]:
    """Yield the prediction for each index, in order; samples are read ahead in a thread.

    selection: of a detector's objects; None: the default one, COCO's 100 per image.

    Raises:
        DataError: a sample cannot be read.
    """
    predict = Predictor(session, selection)
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        for index in indices:
            waiting.append((index, pool.submit(dataset.load, index)))
            if len(waiting) > _AHEAD:
                yield _predicted(predict, *waiting.popleft())
        while waiting:
            yield _predicted(predict, *waiting.popleft())


def _predicted(predict: Predictor, index: int, reading: Future[Sample]) -> Prediction:
    sample = reading.result()
    return Prediction(index, sample, predict(sample.image))


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

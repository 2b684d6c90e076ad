"""A hash of scored images and labels: two scores with one hash are of the same images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np

from edgekd.data.base import Sample
from edgekd.evaluate.predictions import Prediction, ResultT


class ImageHash:
    """The sha256 over pixels and labels of samples in order, without names and folders."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def hashing(self, predictions: Iterable[Prediction[ResultT]]) -> Iterator[Prediction[ResultT]]:
        """Yield predictions unchanged, and add their samples."""
        for prediction in predictions:
            self.add(prediction.sample)
            yield prediction

    def add(self, sample: Sample) -> None:
        """Add one sample. The outlines of objects count by their areas and boxes."""
        self._add(sample.image)
        self._add(sample.mask)
        if (objects := sample.instances) is not None:
            for part in (objects.boxes_xyxy, objects.labels, objects.is_ignored, objects.coco_areas):
                self._add(part)

    def hexdigest(self) -> str:
        """Return the hash of the samples so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def _add(self, array: np.ndarray) -> None:
        self._digest.update(json.dumps([array.shape, array.dtype.str]).encode())
        self._digest.update(array.tobytes())

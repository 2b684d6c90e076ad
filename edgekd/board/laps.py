"""Wall time of one image through a session, by stage: prepare, engine, result.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Sequence

import numpy as np

from edgekd.board.postprocess import Predictor
from edgekd.board.timing import Clock, Parted

# Stages of the wall time: image array to network input, the engine's run, outputs to class map, boxes or masks.
PARTS = ("prepare", "engine", "result")


def wall_time(predict: Predictor, images: Sequence[np.ndarray], clock: Clock = time.perf_counter_ns) -> Parted:
    """Return a function that predicts the next image as `Predictor` does, and times its parts `PARTS`.

    Reading the clock between the stages adds less than a microsecond.
    """
    rotated, infer, parts_ns = itertools.cycle(images), predict.session.infer, np.zeros(len(PARTS), np.int64)

    def run() -> Any:
        image = next(rotated)
        began = clock()
        inputs = predict.prepare(image)
        prepared = clock()
        outputs = infer(inputs)
        inferred = clock()
        found = predict.finish(outputs, (image.shape[0], image.shape[1]))
        parts_ns[0], parts_ns[1], parts_ns[2] = prepared - began, inferred - prepared, clock() - inferred
        return found

    return Parted(run, parts_ns)

"""An image's way through a session with the duration of each stage: prepare, engine, result.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

import numpy as np

from edgekd.board.detection import detections
from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.board.timing import Clock, Parted

# Stages of the wall time: image array to network input, the engine's run, outputs to class map, boxes or masks.
PARTS = ("prepare", "engine", "result")
Result = Callable[[Mapping[str, np.ndarray], ModelSpec, Tuple[int, int]], Any]


def result_of(task: str) -> Result:
    """Return the function from outputs, contract and image size (height, width) to a task's result: class map or objects."""
    return class_map if task == "semantic" else detections


def wall_time(session: Session, images: Sequence[np.ndarray], clock: Clock = time.perf_counter_ns) -> Parted:
    """Return the way of the next image through a session, as `postprocess.predictor` goes it, with its parts `PARTS`.

    Reading the clock between the stages adds less than a microsecond.
    """
    spec, rotated, parts_ns = session.spec, itertools.cycle(images), np.zeros(len(PARTS), np.int64)
    name, preprocess, infer, result = spec.inputs[0].name, spec.preprocess, session.infer, result_of(spec.task)
    inputs: Dict[str, np.ndarray] = {}

    def run() -> Any:
        image = next(rotated)
        began = clock()
        inputs[name] = prepare(image, preprocess)
        prepared = clock()
        outputs = infer(inputs)
        inferred = clock()
        found = result(outputs, spec, (image.shape[0], image.shape[1]))
        parts_ns[0], parts_ns[1], parts_ns[2] = prepared - began, inferred - prepared, clock() - inferred
        return found

    return Parted(run, parts_ns)

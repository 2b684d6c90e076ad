"""From network outputs to what the task asks for, and from an image to that: a class map, or objects.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.detection import Detections, Selection, detections
from edgekd.board.frame import frame
from edgekd.board.preprocess import prepare
from edgekd.board.resize import resize_argmax, resize_nearest, resize_plane
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec


def class_map(outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Tuple[int, int]) -> np.ndarray:
    """Return the class map (H, W) uint8 at `image_size` (height, width) of the first image in the batch.

    Logits are resized bilinearly, then the largest wins; a class map, where the graph took the argmax itself, can only
    be resized to the nearest pixel. Of a letterboxed image the result is first brought to the input's size and freed of
    its bars. The result never shares memory with `outputs`.
    """
    tensor = spec.output("logits", "class_map")
    array, place = outputs[tensor.name][0], frame(image_size, spec.preprocess)
    if tensor.role == "logits":
        logits = np.ascontiguousarray(array, dtype=np.float32)
        if not place.is_whole:
            rows, columns = place.rows_columns()
            logits = np.stack([resize_plane(plane, place.input_size)[rows, columns] for plane in logits])
        return resize_argmax(logits, image_size)
    if not place.is_whole:
        array = resize_nearest(array, place.input_size)[place.rows_columns()]
    return resize_nearest(array, image_size).astype(np.uint8)


def predict_objects(session: Session, image: np.ndarray, selection: Optional[Selection] = None) -> Detections:
    """Return the objects that a detector or an instance segmenter finds in an image (H, W, 3) uint8 RGB, at the image's size.

    Raises:
        ImageError: the image has another shape or dtype.
    """
    return detections(_run(session, image), session.spec, (image.shape[0], image.shape[1]), selection)


def predict(session: Session, image: np.ndarray) -> np.ndarray:
    """Return the class map (H, W) uint8 of an image (H, W, 3) uint8 RGB, at the image's size.

    Raises:
        ImageError: the image has another shape or dtype.
    """
    return class_map(_run(session, image), session.spec, (image.shape[0], image.shape[1]))


def predictor(task: str, selection: Optional[Selection] = None) -> Callable[[Session, np.ndarray], Any]:
    """Return the function that gives a task's result for an image: `predict`, or `predict_objects` with a selection."""
    if task == "semantic":
        return predict
    return lambda session, image: predict_objects(session, image, selection)


def _run(session: Session, image: np.ndarray) -> Dict[str, np.ndarray]:
    return session.infer({session.spec.inputs[0].name: prepare(image, session.spec.preprocess)})

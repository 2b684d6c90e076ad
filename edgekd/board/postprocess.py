"""Post-processing: `Predictor` turns an image into a class map or objects, `class_map` turns outputs into a class map.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.class_maps import ClassMaps
from edgekd.board.detection import Selection, detections
from edgekd.board.frame import frame
from edgekd.board.preprocess import Preparation, check_image
from edgekd.board.resize import resize_nearest
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import usable_cores

Size = Tuple[int, int]
Arrays = Dict[str, np.ndarray]
# Number of image sizes whose buffers a predictor keeps, and of threads beyond which the interpreter lock takes the gain.
_SIZES, _THREADS = 4, 4


@dataclass(frozen=True)
class Timed:
    """A result, and the milliseconds of wall time in pre-processing, engine and post-processing."""

    result: Any
    milliseconds: Tuple[float, float, float]


def timed(function: Callable[..., Any], *arguments: Any) -> Tuple[Any, float]:
    """Call a function; return its result and its time in milliseconds."""
    started = time.perf_counter_ns()
    value = function(*arguments)
    return value, (time.perf_counter_ns() - started) / 1e6


class Predictor:
    """Returns the result of a task for an image, with buffers that it keeps; one call at a time.

    A segmenter's result is the class map (H, W) uint8, a detector's or instance segmenter's are `Detections`, both at the
    image's size and the caller's own.

    selection: rule that selects a detector's objects; None: the default one.
    threads: number of threads for pre-processing and class maps; None: the session's number.
    """

    def __init__(self, session: Session, selection: Optional[Selection] = None, threads: Optional[int] = None) -> None:
        self.session = session
        self._selection = selection
        asked = threads or session.runtime.get("threads") or 1
        self._threads = max(1, min(asked, usable_cores(), _THREADS))
        self._tools: "OrderedDict[Size, _Tools]" = OrderedDict()

    def __call__(self, image: np.ndarray) -> Any:
        """Return the result for an image (H, W, 3) uint8 RGB.

        Raises:
            ImageError: the image has another shape or dtype.
        """
        return self.finish(self.session.infer(self.prepare(image)), (image.shape[0], image.shape[1]))

    def timed(self, image: np.ndarray) -> Timed:
        """Return the result for an image (H, W, 3) uint8 RGB and the milliseconds of its stages; ImageError as above."""
        inputs, before = timed(self.prepare, image)
        outputs, engine = timed(self.session.infer, inputs)
        result, after = timed(self.finish, outputs, (image.shape[0], image.shape[1]))
        return Timed(result, (before, engine, after))

    def prepare(self, image: np.ndarray) -> Arrays:
        """Return the session's inputs for an image; valid until the next call with an image of its size; ImageError."""
        check_image(image)
        return {self.session.spec.inputs[0].name: self._for((image.shape[0], image.shape[1])).prepare(image)}

    def finish(self, outputs: Mapping[str, np.ndarray], image_size: Size) -> Any:
        """Return the result of the outputs for an image of `image_size` (height, width)."""
        return self._for(image_size).finish(outputs)

    def _for(self, size: Size) -> _Tools:
        if size not in self._tools:
            self._tools[size] = _Tools(self.session.spec, size, self._selection, self._threads)
            if len(self._tools) > _SIZES:
                self._tools.popitem(last=False)
        self._tools.move_to_end(size)
        return self._tools[size]


class _Tools:
    """Buffers and functions for images of one size."""

    def __init__(self, spec: ModelSpec, size: Size, selection: Optional[Selection], threads: int) -> None:
        self.prepare = Preparation(size, spec.preprocess, threads)
        self.finish: Callable[[Mapping[str, np.ndarray]], Any]
        if spec.task == "semantic":
            self.finish = class_mapper(spec, size, threads)
        else:
            self.finish = lambda outputs: detections(outputs, spec, size, selection)


def class_mapper(
    spec: ModelSpec, image_size: Size, threads: int = 1
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return the function from outputs to the class map (H, W) uint8 of the first image in the batch; see `class_map`."""
    tensor, place = spec.output("logits", "class_map"), frame(image_size, spec.preprocess)
    if tensor.role == "logits":
        _, classes, height, width = tensor.shape
        maps = ClassMaps(classes, (height, width), place, threads)
        return lambda outputs: maps(outputs[tensor.name][0])

    def nearest(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        found = outputs[tensor.name][0].astype(np.uint8)
        if not place.is_whole:
            found = resize_nearest(found, place.input_size)[place.rows_columns()]
        return resize_nearest(found, image_size)

    return nearest


def class_map(outputs: Mapping[str, np.ndarray], spec: ModelSpec, image_size: Size) -> np.ndarray:
    """Return the class map (H, W) uint8 at `image_size` (height, width) of the first image in the batch.

    Logits are resized bilinearly to the network's input, where they are smaller, then to the image, and the largest wins. A
    class map, where the graph took the argmax itself, is resized to the nearest pixel. The bars of a letterboxed image are
    cut off. The result never shares memory with `outputs`.
    """
    return class_mapper(spec, image_size)(outputs)

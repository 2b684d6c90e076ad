"""Results of many images in order, where the next image is prepared and the last result made while the engine runs.

This is for throughput. Latency is that of `Predictor`: one image at a time, with all threads.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Deque, Generator, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgekd.board.detection import Selection
from edgekd.board.postprocess import Predictor, Timed, timed
from edgekd.board.session import Session
from edgekd.board.timing import NS_PER_S, Clock

_FILLING = 4  # results before all three threads have work


def stream_fps(
    session: Session, images: Sequence[np.ndarray], seconds: float, clock: Clock = time.perf_counter_ns
) -> float:
    """Return the images per second of a stream that repeats the images for some seconds."""
    results = stream(session, itertools.cycle(images))
    for _ in range(_FILLING):
        next(results)
    count, started = 0, clock()
    while True:
        next(results)
        count += 1
        passed = clock() - started
        if passed >= seconds * NS_PER_S:
            results.close()
            return count * NS_PER_S / passed


def stream(
    session: Session, images: Iterable[np.ndarray], selection: Optional[Selection] = None
) -> Generator[Any, None, None]:
    """Yield the result of each image (H, W, 3) uint8 RGB, in order, as `timed_stream` does."""
    with closing(timed_stream(session, images, selection)) as results:
        for one in results:
            yield one.result


def timed_stream(
    session: Session, images: Iterable[np.ndarray], selection: Optional[Selection] = None
) -> Generator[Timed, None, None]:
    """Yield result and times of each image (H, W, 3) uint8 RGB, in order; at most four images are under way.

    One thread prepares images, this one runs the engine, a third makes results. `images` is read in this thread. Nothing
    else may use the session meanwhile.


    Raises:
        ImageError: an image has another shape or dtype; raised after the results of the images before it.
    """
    failed: List[Exception] = []
    with ThreadPoolExecutor(1, "edgekd-prepare") as before, ThreadPoolExecutor(1, "edgekd-result") as after:
        line = _Line(session, selection, before, after)
        for image in _until_failure(images, failed):
            line.prepare(image)
            if len(line.prepared) > 1:
                line.run_engine()
            if len(line.results) > 1:
                yield line.next_result()
        while line.prepared:
            line.run_engine()
        while line.results:
            yield line.next_result()
        for failure in failed:
            raise failure


class _Line:
    """The images under way: `prepared` wait for the engine, `results` to be taken."""

    def __init__(
        self,
        session: Session,
        selection: Optional[Selection],
        before: ThreadPoolExecutor,
        after: ThreadPoolExecutor,
    ) -> None:
        self._session, self._before, self._after = session, before, after
        # A prepared input is read by the engine while the next one is written.
        self._preparing = itertools.cycle([Predictor(session, threads=1) for _ in range(2)])
        self._finishing = Predictor(session, selection, threads=1)
        self.prepared: Deque[Future[Tuple[Any, float]]] = deque()
        self.results: Deque[Future[Tuple[Any, float]]] = deque()
        self._sizes: Deque[Tuple[int, ...]] = deque()
        self._times: Deque[Tuple[float, float]] = deque()

    def prepare(self, image: np.ndarray) -> None:
        self.prepared.append(self._before.submit(timed, next(self._preparing).prepare, image))
        self._sizes.append(np.shape(image)[:2])

    def run_engine(self) -> None:
        inputs, size = self.prepared.popleft(), self._sizes.popleft()
        if inputs.exception():  # its turn comes after the results before it
            self.results.append(inputs)
            return
        arrays, preparing_ms = inputs.result()
        outputs, engine_ms = timed(self._session.infer, arrays)
        # The next run writes into the same memory.
        kept = {name: array.copy() for name, array in outputs.items()}
        self.results.append(self._after.submit(timed, self._finishing.finish, kept, size))
        self._times.append((preparing_ms, engine_ms))

    def next_result(self) -> Timed:
        result, finishing_ms = self.results.popleft().result()
        return Timed(result, (*self._times.popleft(), finishing_ms))


def _until_failure(images: Iterable[np.ndarray], failed: List[Exception]) -> Iterator[np.ndarray]:
    """Yield images until reading one fails, and put that error into `failed`: the results before it come first."""
    try:
        yield from images
    except Exception as exc:  # noqa: BLE001 - whatever a caller's images raise is raised in its turn
        failed.append(exc)

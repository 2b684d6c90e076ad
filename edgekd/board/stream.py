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
    """Return the images per second of a stream that goes through the images again and again for some seconds."""
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
        ImageError: an image has another shape or dtype, once the results of those before it are taken.
    """
    # A prepared input is read by the engine while the next one is written.
    preparing = [Predictor(session, threads=1) for _ in range(2)]
    finishing = Predictor(session, selection, threads=1)
    with ThreadPoolExecutor(1, "edgekd-prepare") as before, ThreadPoolExecutor(1, "edgekd-result") as after:
        prepared: Deque[Future] = deque()
        results: Deque[Future] = deque()
        sizes: Deque[tuple] = deque()
        times: Deque[Tuple[float, float]] = deque()
        failed: List[Exception] = []

        def run_engine() -> None:
            inputs, size = prepared.popleft(), sizes.popleft()
            if inputs.exception():  # its turn comes after the results before it
                results.append(inputs)
                return
            arrays, preparing_ms = inputs.result()
            outputs, engine_ms = timed(session.infer, arrays)
            # The next run writes into the same memory.
            kept = {name: array.copy() for name, array in outputs.items()}
            results.append(after.submit(timed, finishing.finish, kept, size))
            times.append((preparing_ms, engine_ms))

        def next_result() -> Timed:
            result, finishing_ms = results.popleft().result()
            return Timed(result, (*times.popleft(), finishing_ms))

        for number, image in enumerate(_until_failure(images, failed)):
            prepared.append(before.submit(timed, preparing[number % 2].prepare, image))
            sizes.append(np.shape(image)[:2])
            if len(prepared) > 1:
                run_engine()
            if len(results) > 1:
                yield next_result()
        while prepared:
            run_engine()
        while results:
            yield next_result()
        for failure in failed:
            raise failure


def _until_failure(images: Iterable[np.ndarray], failed: List[Exception]) -> Iterator[np.ndarray]:
    """Yield images until reading one fails, and put that error into `failed`: the results before it come first."""
    try:
        yield from images
    except Exception as exc:  # noqa: BLE001 - whatever a caller's images raise is raised in its turn
        failed.append(exc)

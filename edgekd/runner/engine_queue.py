"""One engine for many threads: images queue, and each caller gets its result.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edgekd.board.postprocess import Timed
from edgekd.errors import one_line
from edgekd.runner.engine import Engine
from edgekd.runner.metrics import Metrics


class EngineQueue:
    """Runs an engine in a separate thread, first come, first served.

    fault: why the last run failed, "" when it did not.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.engine, self.metrics, self.fault = engine, metrics, ""
        self._thread = ThreadPoolExecutor(1, "edgekd-engine")
        self._lock, self._length = threading.Lock(), 0

    def run(self, pixels: np.ndarray, dropped: int = 0) -> Timed:
        """Return the result for an image (H, W, 3) uint8 RGB, waiting for its turn; raises what the engine raises."""
        self._count(1)
        try:
            return self._thread.submit(self._run, pixels, dropped).result()
        finally:
            self._count(-1)

    def try_out(self) -> None:
        """Run once on a black image, so that an engine that does not work is found at the start; raises as `run`."""
        height, width = self.engine.spec.preprocess.size
        self._thread.submit(self.engine.predictor.timed, np.zeros((height, width, 3), np.uint8)).result()

    @property
    def length(self) -> int:
        """Images that wait, and the one in the engine."""
        return self._length

    def _count(self, change: int) -> None:
        with self._lock:
            self._length += change

    def _run(self, pixels: np.ndarray, dropped: int) -> Timed:
        try:
            timed = self.engine.predictor.timed(pixels)
        except Exception as exc:
            self.fault = one_line(exc)
            self.metrics.count_failure()
            raise
        self.fault = ""
        self.metrics.count_result(timed.milliseconds, dropped)
        return timed

    def close(self) -> None:
        """Let the thread end after what waits."""
        self._thread.shutdown(wait=True)

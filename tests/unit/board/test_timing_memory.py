"""The timed part of a measurement keeps no memory, however many runs it takes: counted by tracemalloc from inside the runs."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np

from edgekd.board import timing
from edgekd.board.bench import engine_time
from edgekd.board.laps import wall_time
from edgekd.board.postprocess import Predictor
from tests.small_nets import CLASSES, images, segmenter

RUNS = 2000
# Integers beyond 256 are objects of 32 bytes; the loop holds about ten of them at any time, and the threads of a test worker
# some more. One object kept in each run would be 56 kB.
ALLOWED_BYTES = 2048


class Watched:
    """A function that notes the memory that Python holds each time it is called."""

    def __init__(self) -> None:
        self.held = np.zeros(4 * RUNS, np.int64)
        self.calls = 0

    def __call__(self) -> None:
        self.held[self.calls] = tracemalloc.get_traced_memory()[0]
        self.calls += 1

    def growth(self, first: int, last: int) -> int:
        """Return the largest growth in bytes from call `first` to any later one up to `last`."""
        return int(self.held[first : last + 1].max() - self.held[first])


def traced(function: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        function()
    finally:
        tracemalloc.stop()


def test_a_burst_keeps_no_memory() -> None:
    watched = Watched()
    budget = timing.Budget(RUNS, 0, burst_seconds=0, burst_runs=RUNS, discard_seconds=0, discard_runs=10)
    traced(lambda: timing.measure_interleaved({"a": watched}, budget))
    assert watched.calls == RUNS + 10
    assert watched.growth(20, RUNS + 9) <= ALLOWED_BYTES


def test_a_burst_with_parts_keeps_no_memory() -> None:
    watched = Watched()
    parted = timing.Parted(watched, np.zeros(3, np.int64))
    budget = timing.Budget(RUNS, 0, burst_seconds=0, burst_runs=RUNS, discard_seconds=0, discard_runs=10)
    traced(lambda: timing.measure_interleaved({"a": parted}, budget))
    assert watched.growth(20, RUNS + 9) <= ALLOWED_BYTES


def test_a_warm_up_keeps_no_memory() -> None:
    watched, now = Watched(), itertools.count(0, 50_000)
    traced(lambda: timing.warm_up(watched, max_seconds=5.0, clock=lambda: next(now)))
    assert watched.calls == RUNS  # 0.2 s of runs that take 0.05 ms and 0.05 ms between them
    assert watched.growth(100, RUNS - 1) <= ALLOWED_BYTES


class Watching:
    """A session that answers with the same array and notes the memory that Python holds."""

    def __init__(self) -> None:
        self.spec = segmenter()[1]
        self.runtime = {"runtime": "by hand"}
        self.watched = Watched()
        self._outputs = {"logits": np.zeros((1, len(CLASSES), 32, 48), np.float32)}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.watched()
        return self._outputs


def test_engine_and_wall_time_keep_no_memory() -> None:
    budget = timing.Budget(RUNS, 0, burst_seconds=0, burst_runs=RUNS, discard_seconds=0, discard_runs=10)
    for measured in (engine_time, lambda session, pictures: wall_time(Predictor(session), pictures)):
        session = Watching()
        function = measured(session, images(2))
        traced(lambda function=function: timing.measure_interleaved({"a": function}, budget))
        assert session.watched.growth(20, RUNS + 9) <= ALLOWED_BYTES, measured.__name__

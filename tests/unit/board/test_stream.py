"""Results in a stream: those of one image at a time, in order, with the engine and its neighbours at work together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgekd.board.postprocess import Predictor
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.board.stream import stream, stream_fps, timed_stream
from edgekd.board.team import run_together
from edgekd.errors import ImageError

SPEC = ModelSpec(
    "semantic",
    ("a", "b", "c"),
    255,
    (TensorSpec("image", "float32", (1, 3, 8, 12), "image"),),
    (TensorSpec("logits", "float32", (1, 3, 8, 12), "logits"),),
    Preprocess((8, 12)),
)


class Session:
    """Logits are the input itself; like a runtime, it reads the input late and writes into the same memory every time."""

    spec = SPEC

    def __init__(self) -> None:
        self.runtime: dict[str, Any] = {}
        self.outputs = np.zeros((1, 3, 8, 12), np.float32)
        self.threads: set[int] = set()

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.threads.add(threading.get_ident())
        self.outputs[...] = inputs["image"]
        return {"logits": self.outputs}


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (rng.integers(5, 30), rng.integers(5, 30), 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_a_stream_gives_the_results_of_one_image_at_a_time_in_order(count: int) -> None:
    images = noise(count)
    predict = Predictor(Session())
    expected = [predict(image) for image in images]
    found = list(stream(Session(), iter(images)))
    assert len(found) == count
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_engine_runs_in_the_thread_of_who_asks() -> None:
    session = Session()
    list(stream(session, noise(5)))
    assert session.threads == {threading.get_ident()}


def test_a_bad_image_fails_in_its_turn() -> None:
    images = [*noise(3), np.zeros((4, 4), np.uint8), *noise(2)]
    results = stream(Session(), images)
    assert [next(results).shape for _ in range(3)] == [image.shape[:2] for image in images[:3]]
    with pytest.raises(ImageError, match="repeat the grey channel"):
        next(results)


def test_a_stream_that_is_left_early_ends_its_threads() -> None:
    before = threading.active_count()
    results = stream(Session(), noise(10))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_images_per_second_are_counted_from_the_first_result_that_has_company() -> None:
    ticks = iter([1_000, *(1_000 + 250_000_000 * k for k in range(1, 9))])
    assert stream_fps(Session(), noise(2), 2.0, lambda: next(ticks)) == pytest.approx(4.0)


def test_images_that_cannot_be_read_fail_in_their_turn() -> None:
    def images() -> Iterator[np.ndarray]:
        yield from noise(3)
        raise OSError("no such file")

    results = stream(Session(), images())
    assert [next(results).shape for _ in range(3)] == [image.shape[:2] for image in noise(3)]
    with pytest.raises(OSError, match="no such file"):
        next(results)


def test_parts_end_before_an_error_is_raised() -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.05)
        done.append("slow")

    def fails() -> None:
        raise ValueError("broken part")

    with pytest.raises(ValueError, match="broken part"):
        run_together([lambda: None, fails, slow])
    assert done == ["slow"]


def test_a_timed_stream_gives_the_same_results_with_the_milliseconds_of_three_stages() -> None:
    class Slow(Session):
        def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            time.sleep(0.02)
            return super().infer(inputs)

    images = noise(5)
    predict = Predictor(Session())
    found = list(timed_stream(Slow(), iter(images)))
    for image, one in zip(images, found, strict=True):
        np.testing.assert_array_equal(one.result, predict(image))
        before, engine, after = one.milliseconds
        assert engine >= 20
        assert min(before, after) > 0

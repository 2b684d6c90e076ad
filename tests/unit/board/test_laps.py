"""An image's way through a session: the predictor's result, and durations of a hand-made clock."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from edgekd.board.laps import PARTS, wall_time
from edgekd.board.postprocess import Predictor
from edgekd.board.specs import ModelSpec
from tests.small_nets import CLASSES, images, segmenter


class Session:
    """Logits that depend on the input: a channel each of its mean colours."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.runtime: dict[str, Any] = {}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image = inputs["image"][0]
        return {"logits": np.stack([image.mean(0) * k for k in range(len(CLASSES))])[None].astype(np.float32)}


def test_the_staged_way_gives_what_the_predictor_gives() -> None:
    session = Session(segmenter()[1])
    pictures = images(2)
    way, predict = wall_time(Predictor(session), pictures), Predictor(session)
    for picture in (*pictures, *pictures):
        np.testing.assert_array_equal(way.run(), predict(picture))


def test_the_parts_are_the_differences_of_four_readings_of_the_clock() -> None:
    ticks = iter([100, 107, 120, 150])
    way = wall_time(Predictor(Session(segmenter()[1])), images(1), clock=lambda: next(ticks))
    way.run()
    assert dict(zip(PARTS, way.parts_ns.tolist(), strict=True)) == {"prepare": 7, "engine": 13, "result": 30}


def test_images_take_turns() -> None:
    pictures = images(3)
    seen: list[float] = []

    class Watching(Session):
        def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(float(inputs["image"].sum()))
            return super().infer(inputs)

    way = wall_time(Predictor(Watching(segmenter()[1])), pictures)
    for _ in itertools.repeat(None, 6):
        way.run()
    assert len(set(seen)) == 3
    assert seen[:3] == seen[3:]

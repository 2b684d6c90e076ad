"""Engines against a first one: the fraction of results that differ, and times round by round."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from edgekd.board import duel as module
from edgekd.board.duel import duel
from edgekd.board.specs import ModelSpec
from edgekd.errors import DataError
from tests.small_nets import CLASSES, images, segmenter


class Session:
    """Class 0 everywhere but in the first rows, which are of class 1; each run takes some milliseconds."""

    def __init__(self, spec: ModelSpec, rows: int, ms: float) -> None:
        self.spec, self.runtime, self._ms = spec, {"runtime": "by hand"}, ms
        logits = np.zeros((1, len(CLASSES), 32, 48), np.float32)
        logits[0, 0] = 1
        logits[0, 1, :rows] = 2
        self._outputs: dict[str, Any] = {"logits": logits}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(self._ms / 1000)
        return self._outputs


def test_a_slower_engine_is_slower_in_every_round_and_other_pixels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISCARD_S", 0.0)
    monkeypatch.setattr(module, "BURST_S", 0.02)
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    spec = segmenter()[1]
    sides = duel({"a": Session(spec, 8, 1), "b": Session(spec, 8, 6), "c": Session(spec, 16, 1)}, images(2), rounds=3)
    assert list(sides) == ["a", "b", "c"]
    assert [len(side.wall_ms) for side in sides.values()] == [3, 3, 3]
    assert all(slow > fast for slow, fast in zip(sides["b"].wall_ms, sides["a"].wall_ms, strict=True))
    assert all(
        part < whole for side in sides.values() for part, whole in zip(side.engine_ms, side.wall_ms, strict=True)
    )
    assert all(part >= 6 for part in sides["b"].engine_ms)
    assert [side.different for side in sides.values()] == [0, 0, 0.25]  # 8 of 32 rows
    assert sides["c"].compared == 2 * 32 * 48


def test_without_images_there_is_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no images"):
        duel({"a": Session(segmenter()[1], 8, 0)}, [], rounds=1)

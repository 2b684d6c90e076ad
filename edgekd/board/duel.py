"""Engines against a first one: results compared on the same images, and wall times in bursts that alternate.

Each round gives one figure per engine, the median of a burst. A ratio is of two figures of one round, so that a machine
that changes its speed changes both.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Sequence

import numpy as np

from edgekd.board import timing
from edgekd.board.detection import Detections
from edgekd.board.laps import PARTS, wall_time
from edgekd.board.parity import SAME, unmatched
from edgekd.board.postprocess import Predictor
from edgekd.board.session import Session
from edgekd.errors import DataError

BURST_S, DISCARD_S = 0.1, 0.1
WARM_UP_S = 1.0


@dataclass(frozen=True)
class Side:
    """One engine of a duel (JSON-ready).

    wall_ms, engine_ms: the median wall time of each round, and of the engine's part of it.
    different: fraction of the pixels with another class than the first engine gives, or of the detections without a
        counterpart there (of one class, IoU 0.99, score 1e-3).
    compared: number of these pixels or detections.
    """

    wall_ms: List[float]
    engine_ms: List[float]
    different: float
    compared: int


def duel(
    sessions: Mapping[str, Session],
    images: Sequence[np.ndarray],
    rounds: int,
    seed: int = 0,
    on_progress: Callable[[str, float], None] = lambda what, share: None,
) -> Dict[str, Side]:
    """Return every engine's times and its difference from the first one.

    Args:
        sessions: by name; the first is what the others are compared with.
        images: uint8 (H, W, 3) RGB, in rotation.
        rounds: number of bursts of each engine.
        seed: seed of the order within each round.
        on_progress: called between bursts.

    Raises:
        DataError: no images.
    """
    if not images:
        raise DataError("there are no images to compare engines on; give at least one")
    first = Predictor(next(iter(sessions.values())))
    expected = [first(image) for image in images]
    differences = {name: _difference(session, images, expected) for name, session in sessions.items()}
    ways = {name: wall_time(Predictor(session), images) for name, session in sessions.items()}
    for way in ways.values():
        timing.warm_up(way.run, WARM_UP_S)
    budget = timing.Budget(0, 0, BURST_S, 3, DISCARD_S, 1, seed, min_rounds=rounds)
    series = timing.measure_interleaved(ways, budget, on_round=lambda share: on_progress("comparing", share))
    engine = PARTS.index("engine")
    return {
        name: Side(
            (one.medians_ns() / timing.NS_PER_MS).tolist(),
            (one.part_medians_ns(engine) / timing.NS_PER_MS).tolist(),
            *differences[name],
        )
        for name, one in series.items()
    }


def _difference(
    session: Session, images: Sequence[np.ndarray], expected: Sequence["np.ndarray | Detections"]
) -> "tuple[float, int]":
    different = compared = 0
    predict = Predictor(session)
    for image, wanted in zip(images, expected):  # noqa: B905 - Python 3.8
        found = predict(image)
        if isinstance(wanted, np.ndarray):
            different, compared = different + int(np.count_nonzero(found != wanted)), compared + wanted.size
        elif isinstance(found, Detections):
            lonely, count = unmatched(wanted, found, SAME["fp32"])
            different, compared = different + lonely, compared + count
    return different / max(1, compared), compared

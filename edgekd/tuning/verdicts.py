"""Judges the choices of a duel, and picks those that win."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgekd.board.choices import Choice
from edgekd.board.duel import Side
from edgekd.board.timing import median_interval

Word = Literal["faster", "slower", "same", "not decided", "refused"]
GAIN = 0.02  # a smaller change of the wall time is no reason to change a recipe


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds of a time over the present engine's in the same round, and its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """A choice and the result of trying it.

    choice: None for another precision, which is judged apart because it changes the result.
    wall_ms: median wall time; None for a choice that was not measured.
    wall, engine: ratios of the wall time and of the engine's part in it.
    different: fraction of pixels or detections that are not the present engine's.
    word: the verdict on the wall time.
    reason: why it was refused, else "".
    """

    name: str
    choice: Choice | None
    word: Word
    wall_ms: float | None = None
    wall: Ratio | None = None
    engine: Ratio | None = None
    different: float | None = None
    reason: str = ""


def ratio(times: Sequence[float], present: Sequence[float]) -> Ratio:
    """Return the ratio of two series of round medians."""
    ratios = [ours / theirs for ours, theirs in zip(times, present, strict=True)]
    low, high = median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high)


def word_of(measured: Ratio, control: Ratio) -> Word:
    """Return the verdict on a ratio.

    Args:
        measured: ratio of a choice.
        control: ratio of the present engine opened a second time, 1 except for noise. Ratios within its interval are noise.
    """
    if measured.low >= 1 - GAIN and measured.high <= 1 + GAIN:
        return "same"
    if measured.high < min(1.0, control.low) and measured.median <= 1 - GAIN:
        return "faster"
    if measured.low > max(1.0, control.high):
        return "slower"
    return "not decided"


def trial(name: str, choice: Choice | None, sides: Mapping[str, Side], control: str, limit: float) -> Trial:
    """Return the trial of a side.

    Args:
        name: name of the choice, which is its side's.
        choice: the choice, None for another precision.
        sides: sides of a duel; the first is the present engine.
        control: name of the present engine's second side.
        limit: fraction of pixels or detections that may differ.
    """
    present, side = next(iter(sides.values())), sides[name]
    wall, engine = ratio(side.wall_ms, present.wall_ms), ratio(side.engine_ms, present.engine_ms)
    word = word_of(wall, ratio(sides[control].wall_ms, present.wall_ms))
    reason = ""
    if choice is not None and side.different > limit:
        word, reason = "refused", f"{side.different:.2%} of the results differ, limit parity.fp32_different = {limit:g}"
    return Trial(name, choice, word, statistics.median(side.wall_ms), wall, engine, side.different, reason)


def best_options(trials: Sequence[Trial]) -> Choice | None:
    """Return the options of the fastest choice for each option, joined; None when no choice is faster."""
    chosen: dict[str, Any] = {}
    for one in _fastest(trials):
        if one.choice and one.choice.options and not set(one.choice.options) & set(chosen):
            chosen |= dict(one.choice.options)
    built = any(one.choice.is_built for one in trials if one.choice and set(one.choice.options) & set(chosen))
    return Choice("options", options=chosen, is_built=built) if chosen else None


def best_export(trials: Mapping[str, Sequence[Trial]]) -> Choice | None:
    """Return the export settings that some engine is faster with, and none slower: all engines of a run share its graph.

    Args:
        trials: by engine.
    """
    chosen: dict[str, Any] = {}
    everything = [one for found in trials.values() for one in found]
    for one in _fastest(everything):
        if one.choice and one.choice.export and not set(one.choice.export) & set(chosen):
            same = [other for other in everything if other.choice and other.choice.export == one.choice.export]
            if all(other.word not in ("slower", "refused") for other in same):
                chosen |= dict(one.choice.export)
    return Choice("graph", export=chosen) if chosen else None


def _fastest(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that are faster, the fastest first."""
    found = [one for one in trials if one.word == "faster" and one.wall is not None]
    return sorted(found, key=lambda one: one.wall.median if one.wall else 1.0)

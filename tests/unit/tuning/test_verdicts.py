"""Verdicts of `edgekd tune` on ratios made by hand, and which winners are written."""

from __future__ import annotations

import pytest

from edgekd.board.choices import ARGMAX, UINT8_NCHW, UINT8_NHWC, Choice
from edgekd.board.duel import Side
from edgekd.tuning.verdicts import Ratio, Trial, best_export, best_options, ratio, trial, word_of

QUIET = Ratio(1.0, 0.99, 1.01)
ONE, TWO = Choice("1 thread", options={"threads": 1}), Choice("2 threads", options={"threads": 2})
ASLEEP = Choice("no spinning", options={"config": {"spin": "0"}})


def side(wall: list[float], different: float = 0.0) -> Side:
    return Side(wall, [one / 2 for one in wall], different, 1000)


def test_a_ratio_pairs_the_rounds_of_a_machine_that_slows_down() -> None:
    found = ratio([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12])
    assert found == Ratio(0.5, 0.5, 0.5)


def test_a_ratio_of_six_rounds_reaches_from_the_smallest_to_the_largest() -> None:
    assert ratio([9, 10, 11, 12, 8, 7], [10] * 6) == Ratio(0.95, 0.7, 1.2)


@pytest.mark.parametrize(
    ("median", "low", "high", "word"),
    [
        (0.9, 0.88, 0.95, "faster"),
        (0.9, 0.7, 1.1, "not decided"),
        (1.2, 1.1, 1.3, "slower"),
        (1.0, 0.985, 1.015, "same"),
        (0.985, 0.97, 0.995, "not decided"),  # faster than 1, and by less than 2 %
    ],
)
def test_the_interval_decides(median: float, low: float, high: float, word: str) -> None:
    assert word_of(Ratio(median, low, high), QUIET) == word


def test_what_a_noisy_control_reaches_is_not_decided() -> None:
    """The present engine beside itself differs by 10 %: so may any other."""
    noisy = Ratio(1.0, 0.9, 1.1)
    assert word_of(Ratio(0.93, 0.92, 0.95), noisy) == "not decided"
    assert word_of(Ratio(1.05, 1.04, 1.06), noisy) == "not decided"
    assert word_of(Ratio(0.8, 0.78, 0.85), noisy) == "faster"


def test_a_faster_choice_that_changes_results_is_refused_with_the_figure() -> None:
    sides = {"present": side([10.0] * 8), "again": side([10.0] * 8), "1 thread": side([5.0] * 8, 0.0123)}
    found = trial("1 thread", ONE, sides, "again", 1e-3)
    assert (found.word, found.wall) == ("refused", Ratio(0.5, 0.5, 0.5))
    assert found.reason == "1.23% of the results differ, limit parity.fp32_different = 0.001"
    assert trial("1 thread", ONE, sides, "again", 0.02).word == "faster"


def test_another_precision_is_measured_and_never_refused_for_its_results() -> None:
    sides = {"present": side([10.0] * 8), "again": side([10.0] * 8), "fp32": side([20.0] * 8, 0.3)}
    found = trial("fp32", None, sides, "again", 1e-3)
    assert (found.word, found.different) == ("slower", 0.3)


def won(choice: Choice, median: float) -> Trial:
    return Trial(choice.name, choice, "faster", 1.0, Ratio(median, median - 0.01, median + 0.01))


def lost(choice: Choice, word: str) -> Trial:
    return Trial(choice.name, choice, word, 1.0, Ratio(1.2, 1.1, 1.3))  # type: ignore[arg-type]


def test_the_fastest_value_of_each_option_wins_and_options_are_joined() -> None:
    chosen = best_options([won(ONE, 0.9), won(TWO, 0.8), won(ASLEEP, 0.95), won(UINT8_NHWC, 0.5)])
    assert chosen is not None
    assert chosen.options == {"threads": 2, "config": {"spin": "0"}}
    assert not chosen.is_built
    assert best_options([lost(ONE, "not decided"), lost(TWO, "slower")]) is None


def test_options_that_need_a_build_keep_that_when_they_are_joined() -> None:
    deep = Choice("level 5", options={"level": 5}, is_built=True)
    chosen = best_options([won(deep, 0.9), won(ONE, 0.8)])
    assert chosen is not None
    assert chosen.is_built


def test_a_graph_is_taken_when_an_engine_is_faster_with_it_and_none_slower() -> None:
    fine = {"a": [won(UINT8_NCHW, 0.9), won(UINT8_NHWC, 0.85)], "b": [lost(UINT8_NHWC, "not decided")]}
    chosen = best_export(fine)
    assert chosen is not None
    assert chosen.export == {"input": "uint8_nhwc"}
    spoiled = {**fine, "b": [lost(UINT8_NHWC, "slower"), lost(UINT8_NCHW, "same")]}
    chosen = best_export(spoiled)
    assert chosen is not None
    assert chosen.export == {"input": "uint8_nchw"}
    assert best_export({"a": [lost(UINT8_NCHW, "same")]}) is None


def test_graphs_of_two_kinds_are_joined_unless_one_is_refused() -> None:
    both = best_export({"a": [won(UINT8_NHWC, 0.9), won(ARGMAX, 0.8)]})
    assert both is not None
    assert both.export == {"argmax": True, "input": "uint8_nhwc"}
    one = best_export({"a": [won(UINT8_NHWC, 0.9), won(ARGMAX, 0.8)], "b": [lost(ARGMAX, "refused")]})
    assert one is not None
    assert one.export == {"input": "uint8_nhwc"}

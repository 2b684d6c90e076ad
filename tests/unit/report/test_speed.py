"""Speed of an engine relative to another: paired rounds, and a verdict only where both intervals carry it."""

from __future__ import annotations

import numpy as np
import pytest
from report_rows import engine

from edgekd.report.latency import RatioInterval, SpeedRatio
from edgekd.report.model import Report
from edgekd.report.speed import speed_ratio, speed_text, speed_verdict, with_speeds

QUIET = engine("a", "int8", 0.6)


def rounds(row: str, series: str, medians: list[float]) -> dict[str, np.ndarray]:
    """Return runs of three a round, whose median is the second."""
    runs = np.array([[0.5 * median, median, 9 * median] for median in medians])
    return {f"{row}/{series}_ns": runs.ravel(), f"{row}/{series}_bursts": np.full(len(medians), 3)}


def test_rounds_are_paired_so_that_a_load_on_both_cancels() -> None:
    load = [1.0, 1, 1, 5, 5, 1, 2, 2]
    samples = rounds("fast", "wall", [100 * x for x in load]) | rounds("slow", "wall", [150 * x for x in load])
    speed = speed_ratio(samples, "fast", "slow")
    assert speed is not None
    assert speed.wall == RatioInterval(ratio=1.5, low=1.5, high=1.5)
    assert (speed.engine, speed.rounds, speed.verdict) == (None, 8, "faster")
    assert speed_text(speed, QUIET, QUIET) == "1.50× as fast (1.50 to 1.50)"


def test_the_interval_is_that_of_the_order_statistics() -> None:
    """Of 8 values the 95 % interval of the median runs from the smallest to the largest: 2 / 2^8 < 5 %, 18 / 2^8 > 5 %."""
    samples = rounds("a", "wall", [100.0] * 8) | rounds("b", "wall", [90.0, 110, 120, 120, 130, 130, 140, 150])
    speed = speed_ratio(samples, "a", "b")
    assert speed is not None
    assert (speed.first.low, speed.first.high, speed.first.ratio) == pytest.approx((0.9, 1.5, 1.25))
    assert speed.verdict == "not decided"
    assert speed_text(speed, QUIET, QUIET) == "not decided: interval includes 1 (0.90 to 1.50× the speed)"


def test_fewer_than_six_rounds_carry_no_verdict() -> None:
    samples = rounds("a", "wall", [100.0] * 5) | rounds("b", "wall", [300.0] * 5)
    speed = speed_ratio(samples, "a", "b")
    assert speed is not None
    assert (speed.verdict, speed.first.low) == ("not decided", None)
    assert speed_text(speed, QUIET, QUIET) == "not decided: too few rounds for an interval (5)"


def test_a_warning_of_the_bench_about_either_engine_leaves_the_speed_undecided() -> None:
    samples = rounds("a", "wall", [100.0] * 8) | rounds("b", "wall", [150.0] * 8)
    speed = speed_ratio(samples, "a", "b")
    assert speed is not None
    noisy = engine("b", "int8", 0.6).model_copy(update={"warnings": ["wall spreads by 30 %"]})
    assert speed_verdict(speed, QUIET, QUIET) == "faster"
    for pair in ((QUIET, noisy), (noisy, QUIET)):
        assert speed_verdict(speed, *pair) == "not decided"
        assert speed_text(speed, *pair) == "not decided: machine not quiet (1.50 to 1.50× the speed)"


@pytest.mark.parametrize(
    ("wall", "engine_alone", "verdict"),
    [
        ((1.2, 1.4), None, "faster"),
        ((1.2, 1.4), (1.3, 1.5), "faster"),
        ((1.2, 1.4), (0.99, 1.01), "faster"),  # equal engines: what is around them is faster
        ((1.2, 1.4), (0.8, 1.2), "not decided"),
        ((1.2, 1.4), (0.7, 0.9), "not decided"),
        ((0.7, 0.9), (0.6, 0.8), "slower"),
        ((0.99, 1.01), (1.3, 1.5), "same"),
        ((0.9, 1.3), (1.3, 1.5), "not decided"),
    ],
)
def test_a_verdict_needs_the_wall_time_and_no_engine_time_that_contradicts_it(
    wall: tuple[float, float], engine_alone: tuple[float, float] | None, verdict: str
) -> None:
    parts = [
        RatioInterval(ratio=sum(ends) / 2, low=ends[0], high=ends[1]) if ends else None for ends in (wall, engine_alone)
    ]
    assert SpeedRatio(against="b", rounds=9, wall=parts[0], engine=parts[1]).verdict == verdict


def test_rows_of_other_rounds_have_no_ratio() -> None:
    samples = rounds("a", "wall", [1.0] * 8) | rounds("b", "wall", [1.0] * 7)
    assert speed_ratio(samples, "a", "b") is None
    assert speed_ratio({"a/wall_ns": np.ones(3), "b/wall_ns": np.ones(3)}, "a", "b") is None  # an earlier edgekd


def test_each_engine_is_compared_with_the_reference_of_its_target() -> None:
    rows = [engine("a", "fp32", 0.6), engine("a", "int8", 0.6), engine("b", "int8", 0.6)]
    samples = {key: value for row in rows for key, value in rounds(row.id, "engine", [2.0] * 6).items()}
    found = with_speeds(Report(schema="edgekd.report/1", rows=rows), samples).rows
    assert [row.speed.against if row.speed else None for row in found] == [None, "a-fp32", None]
    assert found[1].speed is not None
    assert found[1].speed.verdict == "same"

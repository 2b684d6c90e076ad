"""Intervals against values that can be worked out: binomial tables, order statistics of a few values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_run import counts

from edgekd.comparison.intervals import (
    percentile_interval,
    ratio_interval,
    round_ratio_interval,
    time_interval,
)
from edgekd.comparison.runs import Times
from edgekd.evaluate.image_counts import PixelCounts
from edgekd.evaluate.intervals import score_change_intervals, score_intervals


def one_pixel_images(right: int, wrong: int) -> PixelCounts:
    """Images of one pixel of class 0, taken for class 1 in `wrong` of them: the accuracy of a resample is a binomial share."""
    hit = [[1, 0], [1, 0], [1, 0], [1, 0], [1, 0]]
    miss = [[0, 0], [1, 0], [0, 1], [0, 0], [1, 1]]
    return PixelCounts(np.array([hit] * right + [miss] * wrong, np.uint32))


def test_the_interval_of_pixel_accuracy_is_that_of_the_binomial_distribution() -> None:
    """B(100, 1/2): P(B <= 39) = 0.0176 and P(B <= 40) = 0.0284, so the 2.5 % quantile is 40; 60 by symmetry."""
    low, high = score_intervals(one_pixel_images(50, 50))["pixel_accuracy"]
    assert low == pytest.approx(0.40, abs=0.0101)
    assert high == pytest.approx(0.60, abs=0.0101)


def test_the_change_is_paired_so_images_that_are_hard_for_both_cancel() -> None:
    hard = one_pixel_images(50, 50)
    assert score_change_intervals(hard, hard)["pixel_accuracy"] == (0.0, 0.0)


def test_a_change_that_all_images_share_has_no_width() -> None:
    """IoU 6/8 and 8/10 against 1 and 1."""
    low, high = score_change_intervals(PixelCounts(counts(8)), PixelCounts(counts(6)))["miou"]
    assert low == high == pytest.approx(0.775 - 1)


def test_an_interval_is_the_same_every_time() -> None:
    assert score_intervals(one_pixel_images(30, 20)) == score_intervals(one_pixel_images(30, 20))


def test_few_images_have_no_interval() -> None:
    assert score_intervals(PixelCounts(counts()[:19])) == {}
    assert set(score_intervals(PixelCounts(counts()[:20]))) == {"miou", "pixel_accuracy", "boundary_iou"}
    assert score_change_intervals(PixelCounts(counts()[:19]), PixelCounts(counts()[:19])) == {}


def test_a_percentile_of_few_values_has_the_ends_of_the_binomial_table() -> None:
    """B(10, 1/2): P(B < 2) = 0.011, P(B < 3) = 0.055. B(500, 0.99): P(B = 500) = 0.0066, P(B >= 499) = 0.040."""
    assert percentile_interval(list(range(1, 11)), 50, 0.95) == (2, 9)
    assert percentile_interval(list(range(1, 501)), 99, 0.95)[1] == 500
    assert percentile_interval(list(range(1, 301)), 99, 0.95)[1] == math.inf  # P(B = 300) = 0.049


def times(*rounds_ms: float, is_quiet: bool = True) -> Times:
    rounds = np.array(rounds_ms)
    return Times(np.repeat(rounds, 3), rounds, is_quiet)


def test_the_median_of_rounds_has_its_order_statistics_and_all_rounds_where_it_was_not_quiet() -> None:
    """Ten rounds: the second and the ninth."""
    rounds = [float(i) for i in range(1, 11)]
    assert time_interval(times(*rounds), 50) == (2.0, 9.0)
    assert time_interval(times(*rounds, is_quiet=False), 50) == (1.0, 10.0)
    assert time_interval(times(*rounds[:5]), 50) is None  # six carry 95 %


def test_the_ratio_of_two_benches_joins_two_intervals_of_97_5_percent() -> None:
    """Seven rounds carry 97.5 % from the first to the last (2 x 1/128 = 1.6 %), six do not (2 x 1/64 = 3.1 %)."""
    old, new = times(1, 2, 3, 4, 5, 6, 7), times(10, 11, 12, 13, 14, 15, 16)
    assert ratio_interval(old, new, 50) == (10 / 7, 16.0)
    assert ratio_interval(times(1, 2, 3, 4, 5, 6), new, 50) is None


def test_the_ratio_within_one_bench_is_of_each_round() -> None:
    """Nine ratios 2, ..., 10: P(B < 2) = 10/512 = 0.0195, so the second and the eighth. The machine's own changes cancel."""
    speed = np.array([1, 5, 2, 9, 3, 7, 4, 8, 6], float)
    assert round_ratio_interval(times(*speed), times(*(speed * np.arange(2, 11)))) == (3.0, 9.0)
    assert round_ratio_interval(times(1, 2, 3), times(1, 2, 3)) is None
    assert round_ratio_interval(times(*speed), times(1, 2)) is None

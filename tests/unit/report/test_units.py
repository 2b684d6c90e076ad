"""Numbers as text: the sign of a difference, significant digits, and a dash for what is missing."""

from __future__ import annotations

import pytest

from edgekd.report.units import milliseconds, percent, points, ratio, scaled, size


@pytest.mark.parametrize(
    ("difference", "text"), [(0.0271, "+2.7"), (-0.0123, "−1.2"), (-0.0004, "0.0"), (0.0, "0.0"), (None, "–")]
)
def test_points_carry_a_sign_unless_they_round_to_nothing(difference: float | None, text: str) -> None:
    assert points(difference) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.8124, "0.812"), (4.118, "4.12"), (31.44, "31.4"), (128.4, "128"), (None, "–")]
)
def test_milliseconds_have_three_significant_digits(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


def test_bytes_and_counts_are_in_si_units() -> None:
    assert (size(999), size(288_267), size(1_130_000), size(None)) == ("999 B", "288 kB", "1.13 MB", "–")
    assert (scaled(122_521).strip(), scaled(4.8e9).strip()) == ("123 k", "4.80 G")


def test_percent_and_ratio() -> None:
    assert (percent(0.62345), percent(0.62345, 2), percent(None)) == ("62.3", "62.34", "–")
    assert (ratio(2.314), ratio(12.44)) == ("2.31×", "12.4×")

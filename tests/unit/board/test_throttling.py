"""Signs of throttling in planted sensor series."""

from __future__ import annotations

import pytest

from edgekd.board.sampling import SensorSeries
from edgekd.board.throttling import events_between, signs
from tests.unit.board.planted import NS, samples, series


def first(one: SensorSeries, locked: dict[str, float] | None = None) -> tuple[float, str] | None:
    """Return second and text of the first sign between second 10 and 60."""
    found = signs(samples(one), (10 * NS, 60 * NS), locked or {})
    assert len(found) <= 1
    return (found[0].time_ns / NS, found[0].text) if found else None


def stepped(quantity: str, name: str, before: float, after: float, at: float = 30.0) -> SensorSeries:
    return series(quantity, name, lambda second: before if second < at else after, 70)


@pytest.mark.parametrize(
    ("quantity", "name", "before", "after", "text"),
    [
        ("clock_limit_mhz", "cpu policy0", 1984, 1500, "the highest clock of cpu policy0 fell from 1984 to 1500 MHz"),
        ("cooling_state", "devfreq-17000000.gpu", 0, 2, "cooling: devfreq-17000000.gpu rose from 0 to 2"),
        ("count", "over-current oc3", 3, 4, "over-current oc3 rose from 3 to 4"),
        ("flags", "firmware", 0, 0b100, "firmware: throttled"),
        ("flags", "firmware", 1 << 16, 1 << 16 | 1 << 18, "firmware: throttled"),
        ("flags", "supply voltage", 0, 1, "supply voltage: under-voltage"),
    ],
)
def test_a_sign_has_its_time(quantity: str, name: str, before: float, after: float, text: str) -> None:
    assert first(stepped(quantity, name, before, after)) == (30.0, text)


@pytest.mark.parametrize(
    ("quantity", "name", "before", "after"),
    [
        ("clock_limit_mhz", "cpu policy0", 1500, 1984),
        ("clock_mhz", "cpu policy0", 1984, 600),  # not locked
        ("cooling_state", "pwm-fan", 0, 3),
        ("count", "pwm-fan transitions", 7, 9),
        ("cooling_state", "cpufreq-cpu0", 2, 0),
        ("flags", "firmware", 1 << 16 | 1 << 18, 1 << 16 | 1 << 18),  # since boot, and not of this run
        ("flags", "firmware", 1 << 18, 0),
        ("temp_c", "cpu-thermal", 50, 95),
    ],
)
def test_what_costs_no_speed_or_was_there_before_is_no_sign(
    quantity: str, name: str, before: float, after: float
) -> None:
    assert first(stepped(quantity, name, before, after)) is None


def test_a_flag_that_is_set_from_the_start_is_a_sign() -> None:
    assert first(series("flags", "firmware", lambda _: 0b0010, 70)) == (10.0, "firmware: clock capped")


def test_a_locked_clock_below_its_lock_is_a_sign_and_one_that_is_off_is_none() -> None:
    locked = {"ga10b": 918.0}
    assert first(stepped("clock_mhz", "ga10b", 918, 510), locked) == (30.0, "ga10b ran at 510 MHz, locked at 918")
    assert first(stepped("clock_mhz", "ga10b", 918, 0), locked) is None
    assert first(stepped("clock_mhz", "ga10b", 918, 900), locked) is None  # within 3 %


def test_signs_come_in_the_order_of_time() -> None:
    found = signs(
        samples(stepped("count", "oc1", 0, 1, at=40), stepped("cooling_state", "cpufreq-cpu0", 0, 1, at=20)),
        (0, 60 * NS), {},
    )  # fmt: skip
    assert [sign.time_ns / NS for sign in found] == [20.0, 40.0]


def test_what_happens_after_the_stretch_is_no_sign() -> None:
    assert first(stepped("count", "oc1", 0, 1, at=65)) is None


def test_two_snapshots_show_what_counters_and_flags_did_between_them() -> None:
    before = {
        "count/over-current oc3": 3.0,
        "count/throttle cpu0 core": 1.0,
        "flags/firmware": float(1 << 16),
        "temp_c/a": 1.0,
    }
    after = {
        "count/over-current oc3": 5.0,
        "count/throttle cpu0 core": 9.0,  # the bench sums these up by itself
        "count/pwm-fan transitions": 7.0,
        "flags/firmware": float(1 << 16 | 1 << 18),
        "temp_c/a": 90.0,
    }
    assert events_between(before, after) == [
        "over-current oc3 rose from 3 to 5 during the run", "firmware: throttled during the run",
    ]  # fmt: skip
    assert events_between(after, after) == []
    assert events_between({}, after) == []

"""Energy per frame from planted sensor series, with figures worked out on paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgekd.board.energy import Stretches, energies, why_no_meter
from edgekd.board.sampling import SensorSeries
from edgekd.board.sensors.meters import meters
from tests.unit.board.planted import NS, samples, series

# 30 s busy, and just not 30 s idle before and after
STRETCHES = Stretches((0, 30 * NS - 1), (30 * NS, 60 * NS), (60 * NS + 1, 90 * NS))


def power(idle: float, busy: float, after: float | None = None, wobble: float = 0.01) -> Callable[[float], float]:
    """Return a power that is `idle`, then `busy`, then `after`; the busy one swings around its mean by `wobble`."""

    def value(second: float) -> float:
        if second < 30:
            return idle
        if second > 60:
            return idle if after is None else after
        return busy + wobble * (2 * (second - 30) / 30 - 1)  # rises in a line: its mean is `busy`, all values differ

    return value


def rail(value: Callable[[float], float], name: str = "VDD_IN", group: str = "ina3221") -> SensorSeries:
    return series("power_w", name, value, 90, group=group)


def test_gross_and_net_energy_of_a_power_sensor() -> None:
    (found,) = energies(samples(rail(power(5.0, 9.0))), STRETCHES, frames=600)
    assert found.reason == ""
    assert found.gross_mj == pytest.approx(1000 * 9.0 * 30 / 600, rel=1e-6)  # 450 mJ
    assert found.net_mj == pytest.approx(1000 * 4.0 * 30 / 600, rel=1e-6)  # 200 mJ
    assert (found.idle_before_w, found.idle_after_w) == (5.0, 5.0)
    assert (found.meter, found.method, found.frames, found.seconds) == ("VDD_IN", "trapezoid", 600, 30.0)
    assert "carrier board" in found.scope
    assert found.uncertainty == 0.0
    assert found.distinct == 151  # 5 a second and both ends


def test_an_idle_power_that_drifts_a_little_is_the_uncertainty() -> None:
    (found,) = energies(samples(rail(power(5.0, 9.0, 5.2))), STRETCHES, frames=600)
    assert found.net_mj == pytest.approx(1000 * (9.0 - 5.1) * 30 / 600, rel=1e-6)
    assert found.uncertainty == pytest.approx(0.2 / 3.9, rel=1e-6)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (power(5.0, 9.0, 5.6), "the idle powers before and after differ by 16% of the net power, more than 10%"),  # 0.6 / 3.7
        (power(5.0, 4.98), "the engine takes -20 mW more than idle, which is no measurable power"),
        (power(5.0, 9.0, wobble=0.0), "1 different values while the engine ran, 20 are needed; measure longer"),
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_told_from_noise_is_withheld(value: Callable[[float], float], why: str) -> None:
    (found,) = energies(samples(rail(value)), STRETCHES, frames=600)
    assert (found.gross_mj, found.net_mj, found.reason) == (None, None, why)
    assert found.busy_w is not None  # what was read is kept


def test_a_counter_is_read_as_a_difference_through_its_wraps() -> None:
    # 20 J/s idle, 50 J/s busy; the counter begins again at 0 every 100 J: many times.
    def joules(second: float) -> float:
        busy = min(max(second - 30, 0.0), 30.0)
        return (20 * (second - busy) + 50 * busy) % 100

    counter = series("energy_j", "package-0", joules, 90, group="rapl", wraps_at=100.0)
    core = series("energy_j", "core", lambda second: second, 90, group="rapl", wraps_at=100.0)
    (found,) = energies(samples(counter, core), STRETCHES, frames=1000)
    assert (found.meter, found.method) == ("package-0", "counter")  # the core is in the package
    assert found.gross_mj == pytest.approx(1000 * 50 * 30 / 1000)  # 1500 mJ
    assert found.net_mj == pytest.approx(1000 * 30 * 30 / 1000)


def test_rails_are_summed_where_there_is_no_total_and_not_added_to_one() -> None:
    rails = [
        rail(power(1.0, 2.0), "VDD_GPU_SOC"),
        rail(power(0.5, 1.0), "VDD_CPU_CV"),
        rail(power(2.0, 2.5), "VIN_SYS_5V0"),
    ]
    (found,) = energies(samples(*rails), STRETCHES, frames=30)
    assert found.meter == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert found.gross_mj == pytest.approx(1000 * 5.5)  # a frame a second
    assert found.net_mj == pytest.approx(1000 * 2.0)
    with_total = samples(*rails, rail(power(5.0, 8.0), "VDD_IN"))
    (found,) = energies(with_total, STRETCHES, frames=30)
    assert (found.meter, found.gross_mj) == ("VDD_IN", pytest.approx(8000.0))


def test_readings_that_failed_are_left_out() -> None:
    whole = rail(power(5.0, 9.0))
    values = whole.values.copy()
    values[200:210] = np.nan  # two seconds of the busy stretch
    (found,) = energies(samples(SensorSeries(whole.channel, whole.times_ns, values)), STRETCHES, frames=600)
    assert found.gross_mj == pytest.approx(450.0, rel=1e-6)


def test_without_a_sensor_the_reason_is_the_systems() -> None:
    why = {"power_w": "nothing at /sys/class/hwmon/hwmon*", "energy_j": "/sys/class/powercap/x: root only"}
    without = samples(unreadable=why)
    assert energies(without, STRETCHES, frames=1) == []
    assert why_no_meter(without) == (
        "no power sensor readable: nothing at /sys/class/hwmon/hwmon*; /sys/class/powercap/x: root only"
    )
    assert why_no_meter(samples(rail(power(5.0, 9.0)))) == ""


def test_a_stretch_without_values_gives_no_figure() -> None:
    late = series("power_w", "VDD_IN", power(5.0, 9.0), 90, group="ina3221")
    cut = SensorSeries(late.channel, late.times_ns[150:], late.values[150:])
    (found,) = energies(samples(cut), STRETCHES, frames=600)
    assert (found.idle_before_w, found.gross_mj) == (None, None)
    assert found.reason == "fewer than two values in a stretch; measure longer"


def test_the_meter_that_covers_most_comes_first_and_says_what_it_leaves_out() -> None:
    rails = [
        series("power_w", "amdgpu PPT", lambda _: 1.0, 1, group="hwmon"),
        series("power_w", "accelerator", lambda _: 1.0, 1, group="accelerator"),
        series("power_w", "VDD_CORE", lambda _: 1.0, 1, group="pmic"),
        series("power_w", "3V3_SYS", lambda _: 1.0, 1, group="pmic"),
        series("energy_j", "psys", lambda _: 1.0, 1, group="rapl"),
        series("energy_j", "package-0", lambda _: 1.0, 1, group="rapl"),
    ]
    found = meters(one.channel for one in rails)
    assert [meter.name for meter in found] == ["VDD_CORE + 3V3_SYS", "psys", "accelerator", "amdgpu PPT"]
    assert "5 V input" in found[0].scope
    assert "the host is not in it" in found[2].scope

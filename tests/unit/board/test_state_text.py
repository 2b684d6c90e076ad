"""State of a machine in words."""

from __future__ import annotations

from pathlib import Path

from edgekd.board.state import snapshot
from edgekd.board.state_text import described, not_readable
from tests.recorded_tree import make_tree


def test_a_jetsons_state_has_units(tmp_path: Path) -> None:
    texts = described(snapshot(make_tree("jetson-orin", tmp_path)))
    assert texts["clocks"].startswith("cpu policy0 1984 MHz, cpu policy4 1984 MHz, 15340000.vic 115 MHz, ga10b 918 MHz")
    assert texts["temperatures"] == "cpu-thermal 48.5 °C, gpu-thermal 47.2 °C"
    assert texts["power"] == "VDD_IN 7.46 W, VDD_CPU_GPU_CV 2.62 W, VDD_SOC 1.97 W"
    assert texts["load of accelerators"] == "ga10b 64 %"
    assert texts["events since boot"].endswith("over-current oc1 0, over-current oc3 3")
    assert texts["clocks locked"] == "yes"
    assert texts["cooling on"] == "pwm-fan"
    assert texts["cooling begins at"] == "cpu-thermal 99 °C"
    assert texts["memory available"] == "12.3 GB"
    assert texts["up for"] == "1.0 h"
    assert "firmware flags" not in texts


def test_flags_say_what_is_now_and_what_was(tmp_path: Path) -> None:
    texts = described(snapshot(make_tree("raspberry-pi-5", tmp_path)))
    assert texts["firmware flags"] == "supply voltage: none; firmware: under-voltage since boot, throttled since boot"
    assert texts["clocks locked"] == "no: policy0 1500 to 2400 MHz"


def test_what_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    lines = not_readable(snapshot(make_tree("vm", tmp_path)))
    assert "power: nothing at /sys/class/hwmon/hwmon*, /sys/bus/i2c/devices/*/iio:device*" in lines
    assert lines[0].startswith("clocks: nothing at /sys/devices/system/cpu/cpufreq/policy*")
    state = {
        "unreadable": {"energy_j/package-0": "/sys/class/powercap/x: root only", "vcgencmd pmic_read_adc": "no value"}
    }
    assert not_readable(state) == [
        "energy_j/package-0: /sys/class/powercap/x: root only", "vcgencmd pmic_read_adc: no value",
    ]  # fmt: skip


def test_a_state_of_an_earlier_edgekd_is_described_as_far_as_it_goes() -> None:
    assert described({"load_average": [1.0, 0.5, 0.25], "cpufreq": None}) == {"load average": "1.00 0.50 0.25"}
    assert not_readable({}) == []


def test_an_energy_counter_stands_for_power(tmp_path: Path) -> None:
    lines = not_readable(snapshot(make_tree("intel-core-ultra", tmp_path)))
    assert lines == []

"""State of machines whose files are recorded, with the values worked out by hand from the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.board.state import snapshot
from edgekd.board.sysinfo import environment
from tests.recorded_tree import NAMES, RECORDINGS, make_tree


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_where_it_comes_from(name: str) -> None:
    head = (RECORDINGS / f"{name}.txt").read_text().splitlines()[:5]
    assert "nobody recorded it on hardware" in head[0]
    assert name == "vm" or any(line.startswith("# Sources: ") for line in head)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_json_and_names_what_it_could_not_read(tmp_path: Path, name: str) -> None:
    state = snapshot(make_tree(name, tmp_path))
    assert json.loads(json.dumps(state)) == state
    absent = {key for key, value in state.items() if value is None} - {"clocks_locked"}
    assert absent <= set(state["unreadable"])


def test_a_jetson_orin(tmp_path: Path) -> None:
    root = make_tree("jetson-orin", tmp_path)
    state = snapshot(root)
    assert state["readings"] == {
        "clock_mhz/cpu policy0": 1984.0, "clock_mhz/cpu policy4": 1984.0, "clock_mhz/15340000.vic": 115.2,
        "clock_mhz/ga10b": 918.0, "clock_mhz/emc": 3199.0,
        "clock_limit_mhz/cpu policy0": 1984.0, "clock_limit_mhz/cpu policy4": 1984.0, "clock_limit_mhz/15340000.vic": 729.6,
        "clock_limit_mhz/ga10b": 918.0, "clock_limit_mhz/emc": 3199.0,
        "load/ga10b": 0.635,  # 635 of 1000
        "temp_c/cpu-thermal": 48.531, "temp_c/gpu-thermal": 47.25, "temp_c/cv0-thermal": None,
        "cooling_state/pwm-fan": 2.0, "cooling_state/devfreq-17000000.gpu": 0.0,
        "count/devfreq-17000000.gpu transitions": 4.0, "count/over-current oc1": 0.0, "count/over-current oc3": 3.0,
        "power_w/VDD_IN": 7.4592,  # 5.040 V * 1.480 A
        "power_w/VDD_CPU_GPU_CV": 2.6208,  # 5.040 V * 0.520 A
        "power_w/VDD_SOC": 1.972544,  # 5.032 V * 0.392 A
    }  # fmt: skip
    assert (state["clocks_locked"], state["unlocked"]) == (True, [])  # the video engine's clock does not count
    assert state["trip_points"] == [
        {"zone": "cpu-thermal", "kind": "passive", "temp_c": 99.0},
        {"zone": "cpu-thermal", "kind": "critical", "temp_c": 104.5},
    ]
    assert state["swap_used_bytes"] == 144 * 1024
    assert state["available_bytes"] == 12_000_000 * 1024
    assert (state["boot_id"], state["uptime_s"]) == ("11111111-2222-3333-4444-555555555555", 3600.5)
    facts = environment(root)
    assert facts["core_names"] == {"Cortex-A78AE": 2}
    assert facts["driver_versions"] == {"l4t": "36.4.0", "l4t_package": "36.4.3-20250107174145", "jetpack": "6.2+b77"}


def test_clocks_are_not_locked_when_the_memory_is_below_its_highest(tmp_path: Path) -> None:
    root = make_tree("jetson-orin", tmp_path)
    (tmp_path / "sys/kernel/debug/bpmp/debug/clk/emc/rate").write_text("2133000000\n")
    state = snapshot(root)
    assert (state["clocks_locked"], state["unlocked"]) == (False, ["emc 2133 to 3199 MHz"])


def test_a_jetson_xavier_with_jetpack_4(tmp_path: Path) -> None:
    root = make_tree("jetson-xavier", tmp_path)
    state = snapshot(root)
    rails = {key: value for key, value in state["readings"].items() if key.startswith("power_w/")}
    assert rails == {  # mW; the rail that is not connected is left out
        "power_w/GPU": 1.238, "power_w/CPU": 0.619, "power_w/SOC": 1.547, "power_w/CV": 0.0, "power_w/SYS5V": 2.5,
    }  # fmt: skip
    assert state["readings"]["clock_mhz/gv11b"] == 0.0  # off
    assert state["unlocked"] == ["policy0 1190 to 2266 MHz", "gv11b 115 to 1377 MHz"]
    facts = environment(root)
    assert facts["core_names"] == {"Carmel": 2}
    assert facts["driver_versions"] == {"l4t": "32.7.1"}
    assert facts["board_model"] == "Jetson-AGX"


def test_an_rk3588_in_the_cold(tmp_path: Path) -> None:
    root = make_tree("rk3588", tmp_path)
    state = snapshot(root)
    assert {key: value for key, value in state["readings"].items() if "cpu" not in key} == {
        "clock_mhz/dmc": 2112.0, "clock_limit_mhz/dmc": 2112.0,
        "clock_mhz/fdab0000.npu": 1000.0, "clock_limit_mhz/fdab0000.npu": 1000.0,
        "load/fdab0000.npu": 0.47, "load/npu cores": 0.05,  # (12 + 3 + 0) / 3 %
        "temp_c/soc-thermal": -4.615, "temp_c/npu-thermal": 0.923,
    }  # fmt: skip
    assert state["unlocked"] == ["policy4 408 to 2400 MHz", "dmc 528 to 2112 MHz", "fdab0000.npu 300 to 1000 MHz"]
    assert state["unreadable"]["power_w"].startswith("nothing at /sys/class/hwmon/hwmon*")
    facts = environment(root)
    assert facts["core_names"] == {"Cortex-A55": 1, "Cortex-A76": 1}
    assert facts["driver_versions"] == {"rknpu": "0.9.8", "librknnrt": "2.3.2"}


def test_a_raspberry_pi_5_gives_its_power_and_flags_through_its_tool(tmp_path: Path) -> None:
    state = snapshot(make_tree("raspberry-pi-5", tmp_path))
    assert {key: value for key, value in state["readings"].items() if "cpu" not in key} == {
        "temp_c/rp1_adc temp1": 52.0,  # the thermal zone's own hwmon device is left out
        "cooling_state/pwm-fan": 1.0,
        "flags/supply voltage": 0.0,
        "flags/firmware": float(1 << 16 | 1 << 18),
        "power_w/3V3_SYS": 0.33,  # 3.3 V * 0.1 A
        "power_w/VDD_CORE": 1.35,  # 0.9 V * 1.5 A; EXT5V and BATT have no current
    }


def test_the_firmwares_file_is_read_instead_of_its_tool(tmp_path: Path) -> None:
    root = make_tree("raspberry-pi-5", tmp_path)
    file = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text("50005\n")
    assert snapshot(root)["readings"]["flags/firmware"] == float(0x50005)


def test_a_tool_that_fails_is_named(tmp_path: Path) -> None:
    root = make_tree("raspberry-pi-5", tmp_path)
    (tmp_path / "usr/bin/vcgencmd").write_text("#!/bin/sh\nexit 1\n")
    unreadable = snapshot(root)["unreadable"]
    assert "group" in unreadable["vcgencmd pmic_read_adc"]
    assert "nothing at" in unreadable["power_w"]


def test_a_hailo_module_that_measures_its_power(tmp_path: Path) -> None:
    tool = tmp_path / "usr/bin/hailortcli"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho 'Current power consumption (W): 2.93646'\n")
    tool.chmod(0o755)
    assert snapshot(str(tmp_path))["readings"] == {"power_w/accelerator": 2.93646}


def test_an_intel_core_ultra(tmp_path: Path) -> None:
    state = snapshot(make_tree("intel-core-ultra", tmp_path))
    assert state["readings"] == {
        "clock_mhz/cpu policy0": 4200.0, "clock_limit_mhz/cpu policy0": 4800.0, "clock_mhz/npu": 0.0,
        "busy_s/npu": 12.345678, "memory_bytes/npu": 1048576.0,
        "temp_c/x86_pkg_temp": 71.0, "temp_c/coretemp Package id 0": 71.0,
        "count/throttle cpu0 core": 12.0, "count/throttle cpu0 package": 30.0, "count/throttle cpu1 core": 5.0,
        "energy_j/package-0": 123.456789, "energy_j/core": 23.456789,  # the package of intel-rapl-mmio is the same one
    }  # fmt: skip
    assert state["throttle_counts"] == {"core_throttle_count": 17, "package_throttle_count": 30}
    assert state["turbo"] is True


def test_a_virtual_machine_has_nothing_to_read(tmp_path: Path) -> None:
    root = make_tree("vm", tmp_path)
    state = snapshot(root)
    assert state["readings"] == {}
    assert state["load_average"] == [1.0, 2.0, 3.0]
    assert state["clocks_locked"] is None
    assert state["unreadable"]["power_w"] == "nothing at /sys/class/hwmon/hwmon*, /sys/bus/i2c/devices/*/iio:device*"
    assert state["unreadable"]["cpufreq"] == f"nothing readable at {root}/sys/devices/system/cpu/cpufreq/policy*"
    assert environment(root)["virtualized"] is True


@pytest.mark.parametrize("model", ["QEMU ARM Virtual Machine", "linux,dummy-virt"])
def test_an_emulated_board_is_virtual(tmp_path: Path, model: str) -> None:
    file = tmp_path / "sys/firmware/devicetree/base/model"
    file.parent.mkdir(parents=True)
    file.write_text(f"{model}\0")
    assert environment(str(tmp_path))["virtualized"] is True


def test_what_the_machine_has_and_cannot_be_opened_is_named_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    file.parent.mkdir(parents=True)
    file.symlink_to(file)  # opening it fails like a file of root's, for root, too
    unreadable = snapshot(str(tmp_path))["unreadable"]
    why = "/sys/class/powercap/intel-rapl:0/energy_uj: Too many levels of symbolic links"
    assert unreadable["energy_j/intel-rapl:0"] == unreadable["energy_j"] == why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_roots_is_named_so(tmp_path: Path) -> None:
    file = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    file.parent.mkdir(parents=True)
    file.write_text("1\n")
    file.chmod(0)
    assert snapshot(str(tmp_path))["unreadable"]["energy_j"].endswith("energy_uj: root only")


def test_a_reading_that_fails_is_none_and_stays_a_sensor(tmp_path: Path) -> None:
    # Reading a directory fails with EISDIR, an OSError like a sensor's EIO and EAGAIN.
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone1").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("<unknown>\n")
    assert snapshot(str(tmp_path))["readings"] == {"temp_c/thermal_zone0": None, "temp_c/thermal_zone1": None}


def test_two_sensors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for number, milli in ((0, 41000), (1, 42000)):
        folder = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text("acpitz\n")
        (folder / "temp").write_text(f"{milli}\n")
    assert snapshot(str(tmp_path))["readings"] == {"temp_c/acpitz": 41.0, "temp_c/acpitz 2": 42.0}


def test_clocks_are_read_per_policy_in_numeric_order(tmp_path: Path) -> None:
    for number in (10, 0, 2):
        folder = tmp_path / f"sys/devices/system/cpu/cpufreq/policy{number}"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{1000 * number}\n")
    (tmp_path / "sys/devices/system/cpu/cpufreq/policy2/scaling_cur_freq").write_text("-1\n")
    policies = snapshot(str(tmp_path))["cpufreq"] or []
    assert [(one["policy"], one["cur_khz"]) for one in policies] == [
        ("policy0", 0),
        ("policy2", None),
        ("policy10", 10000),
    ]


def test_cooling_that_is_on_is_named(tmp_path: Path) -> None:
    for number, (kind, level) in enumerate((("Processor", 2), ("Fan", 0))):
        folder = tmp_path / f"sys/class/thermal/cooling_device{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{kind}\n")
        (folder / "cur_state").write_text(f"{level}\n")
    assert snapshot(str(tmp_path))["cooling_active"] == ["Processor"]


def test_a_process_that_computes_beside_this_one_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        try:
            for _ in range(20):  # on a loaded machine it may have to wait for a core
                names = [one["name"] for one in snapshot()["busy_processes"] or ()]
                if any(name.startswith("python") for name in names):
                    return
                time.sleep(0.1)
        finally:
            busy.kill()
    pytest.fail(f"expected python among the busy processes, got {names}")

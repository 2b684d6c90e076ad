"""Energy and sustained latency end to end: a real sampler process on a recorded machine whose files follow an engine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.board.long_runs import LongRunSettings, long_runs
from tests.recorded_tree import make_tree

IDLE_MA, BUSY_MA, MV = 1000, 3000, 5000


class Machine:
    """A Jetson Orin whose input current and temperature follow the engine, as its files say it.

    The current is `IDLE_MA`, and `BUSY_MA` while the engine runs, with a swing of 1 % so that the values differ.
    """

    def __init__(self, folder: Path) -> None:
        self.root = make_tree("jetson-orin", folder)
        (folder / "sys/class/hwmon/hwmon4/in1_input").write_text(f"{MV}\n")
        self._current = folder / "sys/class/hwmon/hwmon4/curr1_input"
        self._temperature = folder / "sys/class/thermal/thermal_zone1/temp"
        self._cooling = folder / "sys/class/thermal/cooling_device1/cur_state"
        self._ran = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def engine(self) -> None:
        """Run one frame: 2 ms."""
        self._ran = time.monotonic()
        time.sleep(0.002)

    def _follow(self) -> None:
        milli_c, count = 50_000, 0
        while not self._stop.wait(0.02):
            is_busy = time.monotonic() - self._ran < 0.05
            count += 1
            swing = (count * 7) % 61 - 30  # -30 to 30 mA
            milli_c = max(50_000, milli_c + (20 if is_busy else -100))
            self._current.write_text(f"{BUSY_MA + swing if is_busy else IDLE_MA}\n")
            self._temperature.write_text(f"{milli_c}\n")
            self._cooling.write_text(f"{int(is_busy and milli_c > 53_000)}\n")

    def __enter__(self) -> Machine:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "root") as made:
        yield made


def test_energy_and_sustained_latency_of_an_engine_that_heats_its_machine(machine: Machine, tmp_path: Path) -> None:
    settings = LongRunSettings(energy_seconds=3, sustained_seconds=4, cool_down_seconds=30, sensor_hz=10)
    found = long_runs({"engine": machine.engine}, settings, tmp_path, lambda what, share: None, machine.root)["engine"]

    (energy,) = found.energies
    assert (energy.reason, energy.meter, found.no_energy) == ("", "VDD_IN", "")
    per_frame_s = energy.seconds / energy.frames
    assert per_frame_s >= 0.002
    # 5 V * 3 A = 15 W busy, 5 W idle; the mean of the swing is within 1 %
    assert energy.gross_mj == pytest.approx(1000 * 15 * per_frame_s, rel=0.03)
    assert energy.net_mj == pytest.approx(1000 * 10 * per_frame_s, rel=0.05)
    assert (energy.idle_before_w, energy.idle_after_w) == (pytest.approx(5.0, rel=0.05), pytest.approx(5.0, rel=0.05))

    sustained = found.sustained
    assert sustained is not None
    assert sustained.seconds == pytest.approx(4.0, abs=0.5)
    assert sustained.hottest == "gpu-thermal"
    assert sustained.start_c is not None
    assert sustained.end_c is not None
    assert sustained.start_c < 53 < sustained.end_c
    assert sustained.signs == ["cooling: devfreq-17000000.gpu rose from 0 to 1"]
    assert sustained.throttled_after_s is not None
    assert 0 < sustained.throttled_after_s < 4
    assert sustained.cool_down.startswith("cooled down to ")  # the energy's stretches ran before
    assert found.sampling is not None
    assert found.sampling.fraction < 0.2
    assert "throttled after" in found.warnings()[-1]

    written = json.loads((tmp_path / "long_runs.json").read_text())
    timeline = written["rows"]["engine"]["timeline"]
    assert timeline["second"] == list(range(len(timeline["second"])))
    assert set(timeline["sensors"]) >= {"temp_c/gpu-thermal", "clock_mhz/ga10b", "power_w/VDD_IN"}
    assert timeline["sensors"]["clock_mhz/ga10b"][:4] == [918.0] * 4
    assert written["state"]["clocks_locked"] is True


def test_without_power_sensors_no_time_is_spent_and_the_reason_is_told(tmp_path: Path) -> None:
    settings = LongRunSettings(energy_seconds=1000)
    root = make_tree("vm", tmp_path / "root")
    found = long_runs({"engine": lambda: None}, settings, tmp_path, lambda what, share: None, root)["engine"]
    assert found.energies == []
    assert found.no_energy.startswith("no power sensor readable: nothing at /sys/class/hwmon/hwmon*")
    assert found.sampling is None

"""Sustained latency from planted runs and sensors, with figures worked out by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from edgekd.board.long_runs import LongRunSettings, back_to_back, cool_down, locked_clocks, longest_seconds
from edgekd.board.sampling_cost import MIN_ROUNDS, SamplingCost, sampling_cost
from edgekd.board.state import snapshot
from edgekd.board.sustained import Runs, sustained, timeline
from tests.recorded_tree import make_tree
from tests.unit.board.planted import NS, samples, series

MS = 1_000_000


def runs(latency_ms: Callable[[float], float], seconds: float) -> Runs:
    """Return runs back to back, each as long as `latency_ms(second)` says."""
    starts, durations, now = [], [], 0
    while now < seconds * NS:
        starts.append(now)
        durations.append(round(latency_ms(now / NS) * MS))
        now += durations[-1]
    return Runs(np.array(starts, np.int64), np.array(durations, np.int64))


def slower_after(second: float) -> Callable[[float], float]:
    """Return 10 ms, and 15 ms after that second."""
    return lambda now: 10.0 if now < second else 15.0


def test_the_last_minute_is_compared_with_the_first() -> None:
    found = sustained(runs(slower_after(200), 300), samples(), {}, "")
    assert (found.first_p50_ms, found.last_p50_ms, found.ratio) == (10.0, 15.0, 1.5)
    assert found.last_p99_ms == 15.0  # 4000 runs in the last minute
    assert found.window_s == 60.0
    assert found.seconds == pytest.approx(300, abs=0.02)
    assert found.runs == 20_000 + 6_667  # 200 s / 10 ms, 100 s / 15 ms and the one that was begun
    assert (found.throttled_after_s, found.hottest, found.slope_k_per_min, found.is_steady) == (None, None, None, None)


def test_halves_are_compared_of_a_run_shorter_than_two_minutes() -> None:
    found = sustained(runs(slower_after(5), 10), samples(), {}, "")
    assert (found.window_s, found.first_p50_ms, found.last_p50_ms) == (pytest.approx(5.0, abs=0.01), 10.0, 15.0)
    assert found.last_p99_ms is None  # 334 runs cannot carry it


def test_temperature_slope_and_first_sign_of_throttling() -> None:
    # GPU: 40 to 70 °C in 240 s, then 0.3 K a minute. CPU: always 45 °C.
    def gpu(second: float) -> float:
        return 40 + second / 8 if second < 240 else 70 + 0.3 * (second - 240) / 60

    sensors = samples(
        series("temp_c", "gpu-thermal", gpu, 330),
        series("temp_c", "cpu-thermal", lambda _: 45.0, 330),
        series("cooling_state", "devfreq-gpu", lambda second: float(second >= 150), 330),
        series("clock_mhz", "ga10b", lambda second: 918.0 if second < 160 else 800.0, 330),
    )
    found = sustained(runs(slower_after(150), 320), sensors, {"ga10b": 918.0}, "cooled down")
    assert found.throttled_after_s == 150.0
    assert found.signs == ["cooling: devfreq-gpu rose from 0 to 1", "ga10b ran at 800 MHz, locked at 918"]
    assert (found.hottest, found.start_c) == ("gpu-thermal", 40.0)
    assert found.slope_k_per_min == pytest.approx(0.3)
    assert found.is_steady is True
    assert found.cool_down == "cooled down"


def test_a_temperature_that_still_rises_is_not_steady() -> None:
    sensors = samples(series("temp_c", "soc", lambda second: 40 + second / 30, 130))  # 2 K a minute
    found = sustained(runs(lambda _: 10.0, 125), sensors, {}, "")
    assert (found.slope_k_per_min, found.is_steady) == (pytest.approx(2.0), False)


def test_the_timeline_has_percentiles_and_means_of_sensors_by_the_second() -> None:
    sensors = samples(
        series("temp_c", "soc", lambda second: 40 + second, 10, hz=2),
        series("clock_mhz", "npu", lambda _: 1000.0, 1, hz=1),
        series("count", "oc1", lambda _: 0.0, 10),
    )
    found = timeline(runs(lambda second: 100.0 if second < 1 else 400.0, 3), sensors)
    # Runs end at 0.1, ..., 1.0, then at 1.4, 1.8, 2.2, 2.6, 3.0.
    assert found.second == [0, 1, 2, 3]
    assert found.p50_ms == [100.0, 400.0, 400.0, 400.0]  # second 1: 100, 400, 400
    assert found.sensors == {
        "temp_c/soc": [40.25, 41.25, 42.25, 43.0],  # at x.0 and x.5; the stretch ends at 3.0
        "clock_mhz/npu": [1000.0, 1000.0, None, None],
    }
    assert json.loads(json.dumps(asdict(found))) == asdict(found)


def test_runs_go_on_for_the_time_and_at_least_once() -> None:
    began = time.perf_counter_ns()
    found = back_to_back(lambda: None, 0.01)
    assert found.stretch[1] >= began + 0.01 * NS
    assert len(back_to_back(lambda: None, 0.0).samples_ns) == 1


def test_clocks_that_are_locked_have_the_samplers_names(tmp_path: object) -> None:
    state = snapshot(make_tree("jetson-orin", tmp_path))  # type: ignore[arg-type]
    assert locked_clocks(state) == {"cpu policy0": 1984.0, "cpu policy4": 1984.0, "ga10b": 918.0}


def test_a_run_waits_for_the_start_temperature_or_says_that_it_was_not_reached() -> None:
    readings = iter([41.9])
    assert cool_down(40.0, 300, lambda: next(readings)) == "cooled down to 41.9 °C in 0 s"
    assert cool_down(40.0, 0, lambda: 55.5) == "42.0 °C was not reached in 0 s: the run began at 55.5 °C"
    assert cool_down(None, 300, lambda: 55.5) == "no temperature can be read, so the start temperature is unknown"


def test_a_job_gets_the_time_that_its_long_runs_may_take() -> None:
    settings = asdict(LongRunSettings(energy_seconds=30, sustained_seconds=600, cool_down_seconds=300))
    # 6 s for the sampler's cost, 3 * 31 s, 600 s and 300 s for each of two engines, and a tenth more
    assert longest_seconds({"long_runs": settings, "engines": {"a": {}, "b": {}}}) == pytest.approx(1.1 * 2 * 999)
    assert longest_seconds({"long_runs": asdict(LongRunSettings()), "engines": {"a": {}}}) == 0
    assert longest_seconds({"model": "x"}) == 0


def test_nothing_runs_unless_it_is_asked_for() -> None:
    assert LongRunSettings().is_off
    assert not LongRunSettings(sustained_seconds=1).is_off


class FakeSampler:
    """Knows whether it runs, as the function that it slows down."""

    is_on = True

    def pause(self) -> None:
        self.is_on = False

    def resume(self) -> None:
        self.is_on = True


def test_the_cost_of_a_sampler_is_the_slow_down_beside_it() -> None:
    sampler, now = FakeSampler(), [0]

    def run() -> None:
        now[0] += 10_300_000 if sampler.is_on else 10_000_000

    found = sampling_cost(run, sampler, 0.1, clock=lambda: now[0])  # type: ignore[arg-type]
    assert found.fraction == pytest.approx(0.03)
    assert (found.rounds, found.spread) == (MIN_ROUNDS, pytest.approx(0.0))
    assert sampler.is_on
    assert found.warning == "the sensors' sampler costs 3.0% (± 0.0%) of the engine time, more than 1%"
    assert SamplingCost(0.009, 0.0, 4).warning == ""

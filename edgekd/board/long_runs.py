"""Runs of one engine alone, beside the sampler of sensors: its cost, energy per frame, sustained latency.

The bench's bursts hold one or two values of a sensor, so these are separate runs, after it. Latency is published from the
bench, which runs without the sampler.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekd.board import energy, sustained
from edgekd.board.energy import Energy, Stretches
from edgekd.board.job import Progress
from edgekd.board.sampler import DEFAULT_HZ
from edgekd.board.sampling import Sampler, Samples
from edgekd.board.sampling_cost import SamplingCost, sampling_cost
from edgekd.board.sensors.discovery import Sensors
from edgekd.board.state import Snapshot, snapshot
from edgekd.board.sustained import Runs, Sustained, Timeline
from edgekd.board.timing import NS_PER_S
from edgekd.errors import EdgekdError, one_line

SCHEMA = "edgekd.long_runs/1"
FACTS = "long_runs.json"
Function = Callable[[], object]
_COST_SECONDS = 6.0
_SETTLE_SECONDS = 1.0  # a sensor that averages still shows the stretch before
_COOLER_K = 2.0
_COOLING_STEP_SECONDS = 2.0


@dataclass(frozen=True)
class LongRunSettings:
    """Lengths of the runs; 0 leaves one out.

    energy_seconds: each of the stretches idle, busy, idle.
    sustained_seconds: back to back.
    cool_down_seconds: longest wait for the start temperature before a sustained run.
    sensor_hz: samples a second, at most 10.
    """

    energy_seconds: float = 0.0
    sustained_seconds: float = 0.0
    cool_down_seconds: float = 300.0
    sensor_hz: float = DEFAULT_HZ

    @property
    def is_off(self) -> bool:
        """Whether there is nothing to run."""
        return not self.energy_seconds and not self.sustained_seconds


@dataclass(frozen=True)
class LongRun:
    """Results of the long runs of one engine.

    sampling: cost of the sampler; None without a sensor.
    energies, no_energy: energy per frame by meter; the reason if there is none ("" also when energy was not requested).
    sustained, timeline: None when not requested.
    """

    sampling: Optional[SamplingCost]
    energies: List[Energy]
    no_energy: str
    sustained: Optional[Sustained]
    timeline: Optional[Timeline]

    def row(self) -> Dict[str, Any]:
        """Return the keys that a row of report.json takes from here."""
        found: Dict[str, Any] = {}
        if self.sampling is not None:
            found["sampling"] = asdict(self.sampling)
        if self.energies or self.no_energy:
            found["energy"] = {"meters": [asdict(one) for one in self.energies], "reason": self.no_energy}
        if self.sustained is not None:
            found["sustained"] = asdict(self.sustained)
        return found

    def warnings(self) -> List[str]:
        """Return the reasons to doubt the figures."""
        found = [self.sampling.warning] if self.sampling is not None and self.sampling.warning else []
        if self.sustained is not None and self.sustained.throttled_after_s is not None:
            found.append(
                f"throttled after {self.sustained.throttled_after_s:.0f} s of sustained load: {self.sustained.signs[0]}"
            )
        return found


@dataclass(frozen=True)
class _Start:
    """Where an engine begins: root, temperature before all runs, whether another engine ran since then."""

    root: str
    celsius: Optional[float]
    is_later: bool


@dataclass(frozen=True)
class _Ran:
    """Times of one engine's runs; the sensors' values are read when all is done."""

    sampling: Optional[SamplingCost]
    stretches: Optional[Stretches]
    frames: int
    runs: Optional[Runs]
    cool_down: str


def long_runs(
    functions: Mapping[str, Function], settings: LongRunSettings, out_dir: Path, on_progress: Progress, root: str = "/"
) -> Dict[str, LongRun]:
    """Run engines one after the other and write `long_runs.json` into `out_dir`, where the sampler writes `sensors.jsonl`.

    Args:
        functions: by row id, what runs one frame.
        settings: how long.
        out_dir: existing folder.
        on_progress: called with the current step and the fraction done.
        root: root of the file system with the sensors.

    Raises:
        ArtifactError: the sampler did not start, or ended early.
    """
    before = snapshot(root)
    start_c, ran = hottest_c(root), {}
    with Sampler(out_dir, settings.sensor_hz, root) as sampler:
        for number, (row, function) in enumerate(functions.items()):
            on_progress("energy and sustained latency", number / len(functions))
            ran[row] = _run(function, settings, sampler, _Start(root, start_c, number > 0))
    on_progress("energy and sustained latency", 1.0)
    samples, locked = sampler.read(), locked_clocks(before)
    results = {row: _result(one, samples, settings, locked) for row, one in ran.items()}
    content = {"schema": SCHEMA, "settings": asdict(settings), "unreadable": samples.unreadable, "state": before}
    rows = {
        row: {**result.row(), "timeline": asdict(result.timeline) if result.timeline else None}
        for row, result in results.items()
    }
    (Path(out_dir) / FACTS).write_text(json.dumps({**content, "rows": rows}), encoding="utf-8")
    return results


def long_run_rows(
    functions: Mapping[str, Function], settings: LongRunSettings, out_dir: Path, on_progress: Progress, root: str = "/"
) -> Dict[str, Dict[str, Any]]:
    """Do the requested `long_runs`; return for each row id its keys of report.json, with `warnings`.

    A failure does not discard the bench before it: every row then has the reason as a warning.
    """
    if settings.is_off:
        return {}
    try:
        results = long_runs(functions, settings, out_dir, on_progress, root)
    except EdgekdError as exc:
        why = f"energy and sustained latency are not measured: {one_line(exc, None)}"
        return {row: {"warnings": [why]} for row in functions}
    return {row: {**result.row(), "warnings": result.warnings()} for row, result in results.items()}


def longest_seconds(arguments: Mapping[str, Any]) -> float:
    """Return the seconds that the long runs of a job (`MeasureArguments`) may take; 0 for other jobs."""
    given = LongRunSettings(**arguments.get("long_runs", {}))
    if given.is_off:
        return 0.0
    stretches = 3 * (given.energy_seconds + _SETTLE_SECONDS)
    one = _COST_SECONDS + stretches + given.sustained_seconds + given.cool_down_seconds
    return 1.1 * one * len(arguments["engines"])


def hottest_c(root: str = "/") -> Optional[float]:
    """Return the temperature of the hottest zone in °C, None where none can be read."""
    with Sensors(root) as sensors:
        temperatures = [
            value
            for source in sensors.sources
            if source.channels[0].quantity == "temp_c"
            for value in source.read()
            if value is not None
        ]
    return max(temperatures, default=None)


def locked_clocks(state: Snapshot) -> Dict[str, float]:
    """Return clock -> MHz of the clocks whose lowest and highest value agree, named as the sampler's."""
    locked = {
        f"cpu {one['policy']}": one["max_khz"] / 1e3
        for one in state["cpufreq"] or ()
        if one["max_khz"] is not None and one["min_khz"] == one["max_khz"]
    }
    for one in state["devfreq"] or ():
        if one["max_hz"] is not None and one["min_hz"] == one["max_hz"]:
            locked[one["name"]] = one["max_hz"] / 1e6
    return locked


def cool_down(target_c: Optional[float], longest_s: float, read_c: Callable[[], Optional[float]]) -> str:
    """Wait until the hottest zone is at most 2 K above a temperature; return the outcome in words."""
    if target_c is None:
        return "no temperature can be read, so the start temperature is unknown"
    limit_c, began = target_c + _COOLER_K, time.monotonic()
    while True:
        now_c, waited_s = read_c(), time.monotonic() - began
        if now_c is not None and now_c <= limit_c:
            return f"cooled down to {now_c:.1f} °C in {waited_s:.0f} s"
        if waited_s >= longest_s:
            reached = "an unknown temperature" if now_c is None else f"{now_c:.1f} °C"
            return f"{limit_c:.1f} °C was not reached in {waited_s:.0f} s: the run began at {reached}"
        time.sleep(min(_COOLING_STEP_SECONDS, longest_s - waited_s))


def _run(function: Function, settings: LongRunSettings, sampler: Sampler, start: _Start) -> _Ran:
    """Run one engine: the sampler's cost, energy, sustained."""
    sensors = sampler.read()
    cost, stretches, frames, runs, waited = None, None, 0, None, ""
    if sensors.series:
        cost_s = min(_COST_SECONDS, max(settings.energy_seconds, settings.sustained_seconds))
        cost = sampling_cost(function, sampler, cost_s)
    if settings.energy_seconds and not energy.why_no_meter(sensors):
        stretches, frames = _energy_stretches(function, settings.energy_seconds)
    if settings.sustained_seconds:
        if start.is_later or stretches:
            waited = cool_down(start.celsius, settings.cool_down_seconds, lambda: hottest_c(start.root))
        runs = back_to_back(function, settings.sustained_seconds)
    return _Ran(cost, stretches, frames, runs, waited)


def _energy_stretches(function: Function, seconds: float) -> Tuple[Stretches, int]:
    """Sleep, run and sleep for `seconds` each, with a moment between them that belongs to none; also the number of runs."""
    settle = min(_SETTLE_SECONDS, seconds / 10)
    time.sleep(settle)
    idle_before = _idle(seconds)
    back_to_back(function, settle)
    busy = back_to_back(function, seconds)
    time.sleep(settle)
    return Stretches(idle_before, busy.stretch, _idle(seconds)), len(busy.samples_ns)


def _idle(seconds: float) -> Tuple[int, int]:
    begin = time.perf_counter_ns()
    time.sleep(seconds)
    return begin, time.perf_counter_ns()


def back_to_back(function: Function, seconds: float) -> Runs:
    """Repeat a function for `seconds`, at least once."""
    starts: List[int] = []
    ends: List[int] = []
    clock = time.perf_counter_ns
    limit = clock() + int(seconds * NS_PER_S)
    while not ends or ends[-1] < limit:
        starts.append(clock())
        function()
        ends.append(clock())
    began = np.array(starts, np.int64)
    return Runs(began, np.array(ends, np.int64) - began)


def _result(ran: _Ran, samples: Samples, settings: LongRunSettings, locked: Mapping[str, float]) -> LongRun:
    energies = energy.energies(samples, ran.stretches, ran.frames) if ran.stretches else []
    why = energy.why_no_meter(samples) if settings.energy_seconds else ""
    if ran.runs is None:
        return LongRun(ran.sampling, energies, why, None, None)
    figures = sustained.sustained(ran.runs, samples, locked, ran.cool_down)
    return LongRun(ran.sampling, energies, why, figures, sustained.timeline(ran.runs, samples))

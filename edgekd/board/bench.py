"""Latency of engines that are open at the same time, on real images, raw samples kept.

Two series per engine. *Engine time*: `session.infer` on inputs prepared beforehand. *Wall time*: image array in, class
map or objects at image size out, with the durations of its stages: `prepare`, `engine`, `result`. A third series is of all
engines: *decode*, from the image file to the array, where the machine has the files. All series are measured in alternating
bursts of one run, so their ratios are fair even where the machine is not quiet.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypedDict, Union

import numpy as np

from edgekd.board import timing
from edgekd.board.footprint import Footprint
from edgekd.board.job import Progress
from edgekd.board.laps import PARTS, wall_time
from edgekd.board.postprocess import Predictor
from edgekd.board.preprocess import prepare
from edgekd.board.session import Session
from edgekd.board.state import Snapshot, snapshot
from edgekd.board.stream import stream_fps
from edgekd.board.sysinfo import Facts
from edgekd.board.throttling import events_between
from edgekd.board.timing import Parted, Series, WarmUp
from edgekd.errors import DataError

# trtexec warns of unstable clocks above this spread (TensorRT samples/common/sampleReporting.cpp).
MAX_CV = 0.025
MAX_DRIFT = 0.05
_DECODE = "decode"  # name of its series; those of engines have a slash


@dataclass(frozen=True)
class BenchSettings:
    """Both limits must be met by each series; `warmup_max_seconds` ends a warm-up that never gets steady."""

    min_samples: int = 500
    min_seconds: float = 3.0
    warmup_max_seconds: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One series: its summary in ms (`timing.summarize`), spread and drift as fractions, its warm-up, the raw runs."""

    summary_ms: Dict[str, float]
    cv: float
    drift: float
    warm_up: WarmUp
    series: Series


class ImageFacts(TypedDict):
    """Number of the distinct images that a bench rotates, and their sizes [height, width] (JSON)."""

    count: int
    sizes: List[List[int]]


class BenchRow(TypedDict):
    """Keys that a row of report.json takes from a bench (JSON)."""

    latency_ms: Dict[str, float]
    wall_ms: Dict[str, float]
    stages_ms: Dict[str, Dict[str, float]]
    sums_ms: Dict[str, float]
    footprint: Optional[Facts]
    throughput_fps: float
    stream_fps: float
    runtime: Facts
    warnings: List[str]


@dataclass(frozen=True)
class BenchResult:
    """The measurements of one engine.

    engine, wall: its two series.
    decode: decoding of the image file, one series for all engines; None where the images were arrays.
    throughput_fps: 1 / mean engine time, images per second of the engine alone.
    stream_fps: images per second from array to result with the stages of several images at work together (`board/stream.py`),
        measured after the other series, engine after engine.
    runtime: facts that the session reports.
    before, after: `state.snapshot` around the run that all engines shared.
    warnings: reasons to doubt the figures, in words; empty when there are none.
    footprint: load time and memory, measured apart in a process of the engine's own; None where that was not done.
    """

    engine: Measured
    wall: Measured
    decode: Optional[Measured]
    throughput_fps: float
    stream_fps: float
    images: ImageFacts
    runtime: Facts
    before: Snapshot
    after: Snapshot
    warnings: Tuple[str, ...]
    footprint: Optional[Footprint] = None

    def row(self) -> BenchRow:
        """Return the keys that a row of report.json takes from here."""
        return {
            "latency_ms": self.engine.summary_ms,
            "wall_ms": self.wall.summary_ms,
            "stages_ms": self.stages_ms(),
            "sums_ms": self.sums_ms(),
            "footprint": asdict(self.footprint) if self.footprint else None,
            "throughput_fps": self.throughput_fps,
            "stream_fps": self.stream_fps,
            "runtime": self.runtime,
            "warnings": list(self.warnings),
        }

    def stages_ms(self) -> Dict[str, Dict[str, float]]:
        """Return the summary of each stage of the wall time, and of `decode` before them where it was measured.

        `engine` is the engine's run between the other two. Its caches hold their data, so that it may take longer than the
        engine time.
        """
        parts = zip(PARTS, self.wall.series.parts_ns.T)  # noqa: B905 - Python 3.8
        stages = {name: timing.summarize(samples) for name, samples in parts}
        return {**({"decode": self.decode.summary_ms} if self.decode else {}), **stages}

    def sums_ms(self) -> Dict[str, float]:
        """Return the medians of whole ways: `array_in`, the wall time, and `file_in`, the median decoding more."""
        sums = {"array_in": self.wall.summary_ms["p50"]}
        if self.decode:
            sums["file_in"] = sums["array_in"] + self.decode.summary_ms["p50"]
        return sums


def bench(
    sessions: Mapping[str, Session],
    images: Sequence[np.ndarray],
    settings: BenchSettings,
    on_progress: Progress = lambda what, share: None,
    decode: Optional[Callable[[], object]] = None,
) -> Dict[str, BenchResult]:
    """Measure all sessions in one interleaved run.

    Args:
        sessions: row id -> opened session.
        images: uint8 (H, W, 3) RGB; each series cycles through them in order.
        settings: how long.
        on_progress: called with what is being done and the share of it that is done, 0 to 1. It must not work from a
            thread: that would show in the slowest runs.
        decode: reads the next image file into an array; None where there are only arrays.

    Raises:
        DataError: no images.
    """
    if not images:
        raise DataError("the bench has no images; give at least one, several for data-dependent work")
    functions: Dict[str, Union[Callable[[], object], Parted]] = {}
    for row, session in sessions.items():
        functions[f"{row}/engine"] = engine_time(session, images)
        functions[f"{row}/wall"] = wall_time(Predictor(session), images)
    if decode is not None:
        functions[_DECODE] = decode
    before, warm = snapshot(), {}
    for name, function in functions.items():
        run = function.run if isinstance(function, Parted) else function
        warm[name] = timing.warm_up(run, settings.warmup_max_seconds)
        on_progress("warming up", len(warm) / len(functions))
    budget = timing.Budget(settings.min_samples, settings.min_seconds, seed=settings.seed)
    series = timing.measure_interleaved(functions, budget, on_round=lambda done: on_progress("measuring", done))
    after = snapshot()
    streams = {row: stream_fps(session, images, settings.min_seconds / 3) for row, session in sessions.items()}
    measured = {name: _measured(series[name], warm[name]) for name in functions}
    sizes = sorted({(image.shape[0], image.shape[1]) for image in images})
    facts: ImageFacts = {"count": len(images), "sizes": [list(size) for size in sizes]}
    return {
        row: _result(
            (measured[f"{row}/engine"], measured[f"{row}/wall"], measured.get(_DECODE)),
            streams[row],
            facts,
            session.runtime,
            (before, after),
        )
        for row, session in sessions.items()
    }


def engine_time(session: Session, images: Sequence[np.ndarray]) -> Callable[[], object]:
    """Return a function that runs a session on the next of the images, all prepared beforehand."""
    name = session.spec.inputs[0].name
    inputs = itertools.cycle([{name: prepare(image, session.spec.preprocess)} for image in images])
    return lambda: session.infer(next(inputs))


def _measured(series: Series, warm_up: WarmUp) -> Measured:
    samples = series.samples_ns
    return Measured(
        timing.summarize(samples), timing.coefficient_of_variation(samples), timing.drift(samples), warm_up, series
    )


def _result(
    measured: Tuple[Measured, Measured, Optional[Measured]],
    streamed: float,
    images: ImageFacts,
    runtime: Facts,
    snapshots: Tuple[Snapshot, Snapshot],
) -> BenchResult:
    engine, wall, decode = measured
    before, after = snapshots
    found = [*_doubts("engine time", engine), *_doubts("wall time", wall)]
    found += _slowed(before, after)
    fps = 1000 / engine.summary_ms["mean"]
    return BenchResult(engine, wall, decode, fps, streamed, images, runtime, before, after, tuple(found))


def _doubts(name: str, measured: Measured) -> List[str]:
    found = []
    if not measured.warm_up.is_steady:
        found.append(f"{name} was not steady after {measured.warm_up.seconds:.1f} s of warm-up")
    if abs(measured.drift) > MAX_DRIFT:
        found.append(f"{name} drifted by {measured.drift:+.1%} from the first to the last third")
    if measured.cv > MAX_CV:
        found.append(
            f"{name} spreads by {measured.cv:.1%} of its mean, more than {MAX_CV:.1%}: the machine is not quiet"
        )
    return found


# Cooling devices of the kernel that heat turns on. Others are on without heat: a dimmed screen, a fixed TCC Offset.
_LIMITS_CLOCKS = ("cpufreq", "devfreq", "processor", "powerclamp")


def _slowed(before: Snapshot, after: Snapshot) -> List[str]:
    """Return the signs that heat took away speed before or between two snapshots: x86 counts it, an ARM kernel limits the clocks."""
    found = []
    if _throttles(after) > _throttles(before):
        found.append("the processor throttled during the run")
    found += events_between(before.get("readings", {}), after.get("readings", {}))
    limits = {policy["policy"]: policy["max_khz"] for policy in before["cpufreq"] or ()}
    for policy in after["cpufreq"] or ():
        was, limit = limits.get(policy["policy"]), policy["max_khz"]
        if was and limit and limit < was:
            found.append(
                f"the highest clock that {policy['policy']} may have fell from {was // 1000} to {limit // 1000} MHz"
            )
    already, now = (Counter(state["cooling_active"] or ()) for state in (before, after))
    held = sorted(name for name in already if any(kind in name.lower() for kind in _LIMITS_CLOCKS))
    if held:
        found.append(f"the kernel's cooling was on before the run: {', '.join(held)}")
    came_on = sorted(name for name in now - already if "fan" not in name.lower())  # a fan costs no speed
    if came_on:
        found.append(f"the kernel's cooling came on during the run: {', '.join(came_on)}")
    return found


def _throttles(state: Snapshot) -> int:
    return sum((state["throttle_counts"] or {}).values())

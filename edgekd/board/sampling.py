"""Sensor values during a measurement: starts, pauses and stops the sampler, and reads its file.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Dict, List, Optional, Type

import numpy as np

from edgekd.board import sampler
from edgekd.board.sensors.sources import Channel
from edgekd.errors import ArtifactError

_START_SECONDS = 30.0


@dataclass(frozen=True)
class SensorSeries:
    """Values of one sensor: `times_ns` (N,) int64 of CLOCK_MONOTONIC, rising; `values` (N,) float64, NaN is no reading."""

    channel: Channel
    times_ns: np.ndarray
    values: np.ndarray

    def between(self, start_ns: int, end_ns: int) -> SensorSeries:
        """Return the readings in [start_ns, end_ns], without those that failed."""
        inside = (self.times_ns >= start_ns) & (self.times_ns <= end_ns) & ~np.isnan(self.values)
        return SensorSeries(self.channel, self.times_ns[inside], self.values[inside])


@dataclass(frozen=True)
class Samples:
    """All samples of a sampler: series by `quantity/name`, and the sensors that it could not read."""

    series: Dict[str, SensorSeries]
    unreadable: Dict[str, str]
    hz: float

    def of(self, quantity: str) -> List[SensorSeries]:
        """Return the series of a quantity."""
        return [series for series in self.series.values() if series.channel.quantity == quantity]


class Sampler:
    """Context manager of a sampler process, which ends with this process.

    Args:
        folder: existing folder for its file.
        hz: samples a second, at most 10.
        root: root of the file system.
    """

    def __init__(self, folder: Path, hz: float = sampler.DEFAULT_HZ, root: str = "/") -> None:
        self.file = Path(folder) / "sensors.jsonl"
        command = [sys.executable, "-m", "edgekd.board.sampler", str(self.file), "--hz", str(hz), "--root", root]
        self.cpu = free_cpu()
        if self.cpu is not None:
            command += ["--cpu", str(self.cpu)]
        folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        environment = {**os.environ, "PYTHONPATH": folders}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        self._is_paused = False

    def __enter__(self) -> Sampler:
        self._wait_for_header()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop reading sensors until `resume`; no effect when already paused."""
        if not self._is_paused:
            self._say(sampler.PAUSE)
            self._is_paused = True

    def resume(self) -> None:
        """Read sensors again; no effect when not paused."""
        if self._is_paused:
            self._say(sampler.RESUME)
            self._is_paused = False

    def read(self) -> Samples:
        """Return the text that the process has written."""
        return load_samples(self.file)

    def _say(self, command: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command)
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise ArtifactError(f"the sampler of sensors ended early (exit code {self._process.wait()})") from exc

    def _wait_for_header(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self._has_header():
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                code = self._process.wait()
                raise ArtifactError(f"the sampler of sensors did not start (exit code {code}); its error is in the log")
            time.sleep(0.02)

    def _has_header(self) -> bool:
        try:
            with open(str(self.file), "rb") as file:
                return file.readline().endswith(b"\n")
        except OSError:  # not there yet, or never
            return False


def free_cpu() -> Optional[int]:
    """Return the CPU for the sampler: the last one outside this process's affinity (and so its engine's); else the last.

    None where processes cannot be bound to CPUs.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    own = os.sched_getaffinity(0)
    others = set(range(os.cpu_count() or 1)) - own
    return max(others or own)


def load_samples(file: Path) -> Samples:
    """Return the content of a sampler's file; a last line that is cut is left out.

    Raises:
        ArtifactError: it is not such a file.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")[:-1]
        header = json.loads(lines[0])
        if header["schema"] != sampler.SCHEMA:
            raise ArtifactError(f"{file}: expected schema {sampler.SCHEMA}, got {header['schema']!r}")
        sources = [[Channel(**channel) for channel in source] for source in header["sources"]]
        times: List[List[int]] = [[] for _ in sources]
        values: List[List[List[Optional[float]]]] = [[] for _ in sources]
        for line in lines[1:]:
            number, before, after, read = json.loads(line)
            times[number].append((before + after) // 2)
            values[number].append(read)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as exc:
        raise ArtifactError(f"{file}: not the file of a sampler ({exc!r})") from exc
    series: Dict[str, SensorSeries] = {}
    for number, channels in enumerate(sources):
        table = np.array(values[number], np.float64).reshape(-1, len(channels))  # None becomes NaN
        for column, channel in enumerate(channels):
            series[channel.key] = SensorSeries(channel, np.array(times[number], np.int64), table[:, column])
    return Samples(series, header["unreadable"], header["hz"])

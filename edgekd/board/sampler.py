"""The sampler: a process that reads a machine's sensors while another one measures.

`python -m edgekd.board.sampler FILE` writes JSON lines until its standard input ends, so it ends with the process that
started it; a byte `p` on it pauses, `r` resumes. The first line is a header; each further line is `[source, before_ns,
after_ns, values]`. The times are those of CLOCK_MONOTONIC, as `time.perf_counter_ns` has them on Linux: they join the start
times of a bench.

Portable: standard library only, Python 3.8. Nothing heavier is imported: it starts on the board that is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import time
from dataclasses import asdict
from typing import List, Optional, TextIO

from edgekd.board.sensors.discovery import Sensors, Source

SCHEMA = "edgekd.sensors/1"
DEFAULT_HZ, MAX_HZ = 5.0, 10.0
SLOW_SECONDS = 1.0  # of tools, which are processes, and of files whose reading costs the driver something
PAUSE, RESUME = b"p", b"r"
_NICE = 19
_INPUT = 0  # descriptor of standard input


def main() -> None:
    """Sample until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m edgekd.board.sampler", description="Sample sensors into a file.")
    parser.add_argument("file", help="JSON lines are written to it")
    parser.add_argument("--hz", type=float, default=DEFAULT_HZ, help=f"samples a second, at most {MAX_HZ:g}")
    parser.add_argument("--cpu", type=int, help="CPU to run on")
    parser.add_argument("--root", default="/", help="root of the file system with /sys and /proc")
    given = parser.parse_args()
    os.nice(_NICE)
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    with Sensors(given.root) as sensors, open(given.file, "w", encoding="utf-8") as file:
        header = {
            "schema": SCHEMA,
            "hz": min(given.hz, MAX_HZ),
            "sources": [[asdict(channel) for channel in source.channels] for source in sensors.sources],
            "unreadable": sensors.unreadable,
        }
        _write(file, header)
        _sample(sensors.sources, 1 / header["hz"], file)


def _sample(sources: List[Source], period_s: float, file: TextIO) -> None:
    """Read all sources every `period_s`, the slow ones at most once a second, until standard input ends."""
    due, is_paused = time.monotonic(), False
    not_before = [0.0] * len(sources)  # slow sources rest after each reading
    while True:
        if not is_paused:
            lines = []
            for number, source in enumerate(sources):
                if time.monotonic() >= not_before[number]:
                    before = time.perf_counter_ns()
                    values: List[Optional[float]] = source.read()
                    lines.append([number, before, time.perf_counter_ns(), values])
                    if source.is_slow:
                        not_before[number] = time.monotonic() + SLOW_SECONDS
            _write(file, *lines)
        due = max(due + period_s, time.monotonic())  # missed samples are skipped
        readable, _, _ = select.select([_INPUT], [], [], None if is_paused else max(0.0, due - time.monotonic()))
        if readable:
            commands = os.read(_INPUT, 4096)
            if not commands:
                return
            is_paused = commands.endswith(PAUSE)


def _write(file: TextIO, *lines: object) -> None:
    file.write("".join(f"{json.dumps(line)}\n" for line in lines))
    file.flush()


if __name__ == "__main__":
    main()

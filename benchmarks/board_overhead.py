"""How much the way over SSH costs: connect and probe, a poll, a push against scp, a second push, the latency of an engine.

    python benchmarks/board_overhead.py                   # on a loopback board that is started for it, see tests/boards
    python benchmarks/board_overhead.py --only latency    # one part: connect_and_probe, poll, push or latency
    python benchmarks/board_overhead.py orin              # on a board of the inventory

Every line has the median of its rounds and its limit. scp and the push take turns with new random bytes in every round. The
push includes the hash of the file on both sides and uses the connection that a run has open; scp makes one, as when it is
typed. A line without a limit is scp over an open connection, which checks nothing, or the latency here. The bench of one ONNX
Runtime engine takes turns between this process and the board, in the other order in every second round. The last line is the
ratio of the two p50 of a round: its median over the rounds, and an interval that holds the true median with at least 95 %
(order statistics). It means something on a loopback board alone. Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from engine_overhead import SIZE, contract, residual_net

from edgekd.board.arguments import MeasureArguments, MeasuredEngine
from edgekd.board.bench import BenchSettings
from edgekd.board.files import sha256_of
from edgekd.board.job import Job
from edgekd.board.long_runs import LongRunSettings
from edgekd.core.inventory import Board, load_inventory
from edgekd.executors.base import Executor, no_progress
from edgekd.executors.local import Local
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.ssh.client import Client, Link
from edgekd.executors.ssh.greeting import greet
from edgekd.executors.ssh.jobs import Jobs
from edgekd.executors.ssh.lock import Waiting
from edgekd.executors.ssh.probe import probe
from edgekd.executors.ssh.store import Store

LOOPBACK = Path(__file__).parents[1] / "tests/boards/loopback_board.sh"
ROUNDS = 5
POLLS = 20
PUSHED_BYTES = 100_000_000
SPEED_OF_SCP = 0.8
LATENCY_ROUNDS = 9
MORE_LATENCY = 1.03


@dataclass(frozen=True)
class Row:
    """A measured time: its samples in seconds, and the limit of their median, None for one that is only shown."""

    name: str
    samples: list[float]
    limit: float | None

    @property
    def is_met(self) -> bool:
        """Whether the median is within the limit."""
        return self.limit is None or statistics.median(self.samples) <= self.limit

    def __str__(self) -> str:
        median = statistics.median(self.samples)
        text = f"{self.name:24} {median:9.5f} s ({min(self.samples):.5f} to {max(self.samples):.5f})"
        return text if self.limit is None else f"{text}; limit {self.limit:.5f}: {'met' if self.is_met else 'MISSED'}"


@dataclass(frozen=True)
class Ratio:
    """Ratios of measurements that took turns, and the limit of their median."""

    name: str
    samples: list[float]
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether the median is within the limit."""
        return statistics.median(self.samples) <= self.limit

    def __str__(self) -> str:
        lowest, highest = interval_of_median(self.samples)
        median, count = statistics.median(self.samples), len(self.samples)
        text = f"{self.name:24} {median:9.4f}   (95 % interval {lowest:.4f} to {highest:.4f}, {count} pairs)"
        return f"{text}; limit {self.limit:.2f}: {'met' if self.is_met else 'MISSED'}"


def interval_of_median(samples: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the closest order statistics between which the median lies with a confidence; the range for few samples.

    Source: David and Nagaraja, Order Statistics, 3rd edition, section 7.1.
    """
    ordered, count = sorted(samples), len(samples)
    outside = 0.0  # on both sides
    for rank in range(count // 2):
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 1 - confidence:
            lowest = max(0, rank - 1)
            return ordered[lowest], ordered[-1 - lowest]
    return ordered[0], ordered[-1]


def main() -> int:
    """Measure everything and print a line for each; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", nargs="?", help="name in the inventory; default: a loopback board")
    parser.add_argument("--only", choices=[one.__name__ for one in MEASURES], help="one part; default: all")
    given = parser.parse_args()
    name = given.board
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with as_given(name) if name else loopback(folder) as board:
            rows = []
            for measure in (one for one in MEASURES if given.only in (None, one.__name__)):
                for row in measure(board, folder):
                    print(row, flush=True)
                    rows.append(row)
    return 0 if all(row.is_met for row in rows) else 1


def connect_and_probe(board: Board, folder: Path) -> Iterator[Row]:
    """A new connection, and all that `edgekd board doctor` reads without a job."""
    samples = []
    for _ in range(ROUNDS):
        client = Client(board.name, board.ssh, Link())
        samples.append(seconds(lambda client=client: probe(client, board)))  # type: ignore[misc]
        client.close()
    yield Row("connect and probe", samples, 3.0)


def poll(board: Board, folder: Path) -> Iterator[Row]:
    """Asking the board how a job stands: CPU time of this process and of ssh."""
    with connected(board) as (client, place):
        jobs, samples = Jobs(client, place), []
        for _ in range(POLLS):
            before = cpu_s()
            jobs.wait("0" * 32, 1)
            samples.append(cpu_s() - before)
    yield Row("poll, CPU time", samples, 0.1)


def push(board: Board, folder: Path) -> Iterator[Row]:
    """A file of 100 MB, and the same again."""
    file, shared = folder / "pushed", ["-o", f"ControlPath={folder / 's'}"]
    pushed: list[float] = []
    again: list[float] = []
    alone: list[float] = []
    together: list[float] = []
    with connected(board) as (client, place), shared_connection(board, shared):
        store = Store(client, place, 1 << 30, 1)
        for _ in range(ROUNDS):
            for samples, options in ((alone, []), (together, shared)):
                file.write_bytes(os.urandom(PUSHED_BYTES))
                copy = ["scp", "-q", *options, str(file), f"{board.ssh}:edgekd-copied"]
                samples.append(seconds(lambda copy=copy: subprocess.run(copy, check=True)))  # type: ignore[misc]
            file.write_bytes(os.urandom(PUSHED_BYTES))
            for samples in (pushed, again):
                samples.append(
                    seconds(lambda: store.push({sha256_of(file): file}, Waiting(board.name, 0), no_progress))
                )
        subprocess.run(["ssh", *shared, board.ssh, "rm edgekd-copied"], check=True)
    yield Row("scp 100 MB", alone, None)
    yield Row("scp 100 MB, connected", together, None)
    yield Row("push 100 MB", pushed, statistics.median(alone) / SPEED_OF_SCP)
    yield Row("push again", again, 0.5)


def latency(board: Board, folder: Path) -> Iterator[Row | Ratio]:
    """The bench's median engine time, in this process and on the board in turns."""
    import onnx

    out = folder / "latency"
    out.mkdir()
    onnx.save(residual_net(), str(out / "engine.onnx"))
    np.save(out / "image.npy", np.zeros((*SIZE, 3), np.uint8))
    engine: MeasuredEngine = {
        "module": "edgekd.targets.onnxruntime",
        "engine": "engine.onnx",
        "spec": contract().to_dict(),
        "options": {"intra_op_threads": 1},
    }
    files = {name: out / name for name in ("engine.onnx", "image.npy")}
    places: dict[str, Executor] = {"here": Local(), "on the board": SshBoard(board)}
    found: dict[str, list[float]] = {name: [] for name in places}
    for seed in range(LATENCY_ROUNDS):
        arguments: MeasureArguments = {
            "engines": {"engine": engine},
            "images": ["image.npy"],
            "settings": asdict(BenchSettings(min_samples=150, min_seconds=0.5, warmup_max_seconds=1.0, seed=seed)),
            "long_runs": asdict(LongRunSettings()),
            "decode": None,
        }
        turns = list(places.items())
        for name, executor in turns if seed % 2 == 0 else reversed(turns):
            value = executor.run_job(Job("measure", "", arguments), files, out, out / "log.txt")
            found[name].append(value["rows"]["engine"]["latency_ms"]["p50"] / 1000)
    yield Row("bench p50 here", found["here"], None)
    yield Row("bench p50 on the board", found["on the board"], None)
    ratios = [there / here for there, here in zip(found["on the board"], found["here"], strict=True)]
    yield Ratio("bench p50, board / here", ratios, MORE_LATENCY)


@contextmanager
def shared_connection(board: Board, options: list[str]) -> Iterator[None]:
    """Hold a connection open that ssh and scp with these options use."""
    master = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600"]
    subprocess.run(["ssh", *master, *options, board.ssh, "true"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ssh", *options, "-O", "exit", board.ssh], capture_output=True, check=True)


@contextmanager
def connected(board: Board) -> Iterator[tuple[Client, str]]:
    """Give an open connection, and edgekd's folder on the board."""
    client = Client(board.name, board.ssh, Link())
    try:
        yield client, greet(client, board).folder
    finally:
        client.close()


@contextmanager
def as_given(name: str) -> Iterator[Board]:
    """Give a board of the inventory in use."""
    yield load_inventory().board(name)


@contextmanager
def loopback(folder: Path) -> Iterator[Board]:
    """Give a loopback board; its host is known to every `ssh` that this process starts, by a script that is first on the PATH."""
    place = folder / "board"
    subprocess.run([str(LOOPBACK), str(place), "up", "--python", sys.executable], check=True, stdout=subprocess.DEVNULL)
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("ssh", "scp"):
        (tools / tool).write_text(f'#!/bin/sh\nexec {shutil.which(tool)} -F "{place / "ssh_config"}" "$@"\n')
        (tools / tool).chmod(0o755)
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    try:
        yield Board(name="loopback", ssh="board")
    finally:
        subprocess.run([str(LOOPBACK), str(place), "remove"], check=True)


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_s() -> float:
    """Return the CPU time of this process and of the children that it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


# Each is called with the board and a scratch folder, and yields its rows.
MEASURES: tuple[Callable[[Board, Path], Iterator[Row | Ratio]], ...] = (connect_and_probe, poll, push, latency)

if __name__ == "__main__":
    sys.exit(main())

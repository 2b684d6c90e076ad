"""Cost of the sampler of sensors: one engine with and without it, on recorded machines.

    python benchmarks/sampler_cost.py RUN [--seconds 8]

RUN is a folder of `edgekd run` with an engine of ONNX Runtime. Each line is a recorded machine (`tests/unit/board/recordings`) and
a rate: how much slower the engine is beside the sampler, the spread of the rounds, and the processor time of one reading.
A recording is files on a disk: a real sensor that asks a chip over I2C takes longer to read.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgekd.board.bench import engine_time
from edgekd.board.sampling import Sampler
from edgekd.board.sampling_cost import sampling_cost
from edgekd.core.artifact import open_artifact
from edgekd.executors.local import open_engine
from tests.recorded_tree import make_tree

MACHINES = (("vm", 5.0), ("jetson-orin", 5.0), ("jetson-orin", 10.0), ("rk3588", 5.0), ("raspberry-pi-5", 5.0))


def main() -> None:
    """Print one line for each machine and rate."""
    parser = argparse.ArgumentParser(description="Cost of the sampler of sensors.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--engine", default="onnxruntime-int8")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    with open_engine(open_artifact(given.run / "engine" / given.engine)) as session:
        function = engine_time(session, [image])
        for name, hz in MACHINES:
            print(measured(name, hz, function, given.seconds), flush=True)


def measured(name: str, hz: float, function: object, seconds: float) -> str:
    """Return the line of one machine."""
    with TemporaryDirectory(prefix="edgekd-cost-") as folder:
        root = make_tree(name, Path(folder) / "root")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Sampler(Path(folder), hz, root) as sampler:
            cost = sampling_cost(function, sampler, seconds)  # type: ignore[arg-type]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        readings = max((len(one.values) for one in sampler.read().series.values()), default=0)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    per_reading = (
        f"{1000 * cpu_s / readings:.1f} ms of CPU per reading, the start included" if readings else "no sensors"
    )
    return f"{name:16} {hz:4.0f} Hz  {cost.fraction:+.2%} ± {cost.spread:.2%} in {cost.rounds} rounds, {per_reading}"


if __name__ == "__main__":
    main()

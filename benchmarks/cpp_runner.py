"""The C++ runner beside Python on the same engine and images: wall time of an image, and its three parts.

    cmake -S deploy/cpp -B build -DOpenVINO_DIR=... && cmake --build build
    python benchmarks/cpp_runner.py build/edgekd-run RUN/engine/openvino-int8 [ENGINE ...] --size 480 640

A round runs some images through `Predictor` in this process, then the same ones in the program, in an order that changes from
round to round. Both have warmed up and wait for their turn. Figures are medians over the rounds of each round's median; the
ratio is Python's wall time over that of C++, with its 95 % interval by order statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgekd.board.postprocess import Predictor
from edgekd.board.timing import median_interval
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.data.formats import scenes

Times = list[tuple[float, float, float]]  # milliseconds of preparing, engine and result of each image
_WARM_UP = 10


def main() -> None:
    """Measure each engine and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="edgekd-run")
    parser.add_argument("engines", type=Path, nargs="+", help="engine artifacts of runs, of the target openvino")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the images; the network's")
    parser.add_argument("--images", type=int, default=8, help="images of a round")
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    print("| engine | images | Python ms (prepare, engine, result) | C++ ms | Python / C++ |\n|---|---|---|---|---|")
    for path in asked.engines:
        print(_line(asked.program, path, asked.size, asked.images, asked.rounds), flush=True)


def _line(program: Path, path: Path, size: tuple[int, int] | None, count: int, rounds: int) -> str:
    engine = open_artifact(path)
    height, width = size or engine.spec.preprocess.size
    rendered = scenes.open_dataset(scenes.Options(height=height, width=width, train=count, val=1), "train")
    images = [np.ascontiguousarray(rendered.load(index).image) for index in range(count)]
    target = plugins.target(engine.details["target"])
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder), engine, images)
        names = [str(bundle / f"{number}.npy") for number in range(count)]
        command = [str(program), str(bundle), *names, "--bench"]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
            target.session(engine.file(engine.details["engine"]), engine.spec, target.options()) as session,
        ):
            predictor = Predictor(session)
            sides: dict[str, Callable[[], Times]] = {
                "python": lambda: _python(predictor, images),
                "cpp": lambda: _cpp(process, count),
            }
            for run in sides.values():
                for _ in range(-(-_WARM_UP // count)):
                    run()
            found = _rounds(sides, rounds)
            assert process.stdin is not None
            process.stdin.close()
    ratios = [
        statistics.median(map(sum, one)) / statistics.median(map(sum, other))
        for one, other in zip(found["python"], found["cpp"], strict=True)
    ]
    low, high = median_interval(ratios)
    texts = [_text(found[name]) for name in ("python", "cpp")]
    return (
        f"| {path.parent.parent.name}/{path.name} | {height}x{width} | {' | '.join(texts)} | "
        f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) |"
    )


def _rounds(sides: dict[str, Callable[[], Times]], rounds: int) -> dict[str, list[Times]]:
    found: dict[str, list[Times]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 1):
            found[name].append(sides[name]())
    return found


def _text(rounds: list[Times]) -> str:
    """Return the median of the rounds' medians: wall time, and its parts."""
    wall = statistics.median(statistics.median(map(sum, one)) for one in rounds)
    parts = [statistics.median(statistics.median(times[i] for times in one) for one in rounds) for i in range(3)]
    return f"{wall:.2f} ({', '.join(f'{part:.2f}' for part in parts)})"


def _python(predictor: Predictor, images: list[np.ndarray]) -> Times:
    times: Times = []
    for image in images:
        marks = [time.perf_counter_ns()]
        inputs = predictor.prepare(image)
        marks.append(time.perf_counter_ns())
        outputs = predictor.session.infer(inputs)
        marks.append(time.perf_counter_ns())
        predictor.finish(outputs, (image.shape[0], image.shape[1]))
        marks.append(time.perf_counter_ns())
        first, second, third = ((after - before) / 1e6 for before, after in pairwise(marks))
        times.append((first, second, third))
    return times


def _cpp(process: subprocess.Popen[str], count: int) -> Times:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return [(one[0] / 1e6, one[1] / 1e6, one[2] / 1e6) for one in json.loads(process.stdout.readline())]


def write_bundle(folder: Path, engine: Artifact, images: list[np.ndarray]) -> Path:
    """Write what the program reads of a bundle, and the images."""
    name = engine.details["engine"]
    for file in engine.file(name).parent.iterdir():
        (folder / "engine").mkdir(exist_ok=True)
        (folder / "engine" / file.name).write_bytes(file.read_bytes())
    (folder / "spec.json").write_text(json.dumps(engine.spec.to_dict()))
    manifest = {"schema": "edgekd.bundle/1", "name": "bench", "version": 1, "task": engine.spec.task, "golden": 0}
    manifest |= {"target": engine.details["target"], "precision": engine.details["precision"], "options": {}}
    manifest |= {"engine": f"engine/{name}", "tolerance": {"error": 0.0, "different": 0.0}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for number, image in enumerate(images):
        np.save(folder / f"{number}.npy", image)
    return folder


if __name__ == "__main__":
    main()

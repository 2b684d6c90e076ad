"""Another command line beside an engine of edgekd: processes that alternate, a ratio with its interval.

    python benchmarks/side_by_side.py RUN/engine/openvino-int8 IMAGES -- peer predict --model peer.onnx --images {images}
    python benchmarks/side_by_side.py ENGINE IMAGES --their-ms 'Speed: .* ([0-9.]+)ms inference' -- peer predict {images}
    python benchmarks/side_by_side.py ENGINE IMAGES --ours engine --their-ms '([0-9.]+) ms' -- peer predict {images}

`{images}` in the command stands for the folder of images. Their figure is the number that `--their-ms` finds in what the command
prints: the median when it finds several, in milliseconds of one image. Without it, it is the wall time of the whole process
over the number of images; ours is then `process`: the same of a process that loads the engine and runs every image once.

Our figure is what `--ours` says: `file` from the image file to the result (the default), `array` from the array to the result,
`engine` the engine's part of that; each the median over the images after a warm-up, in a process of its own.

A round runs both commands once, in an order that changes from round to round. Each round gives one ratio, theirs over
ours. The result is the median of the ratios with its 95 % interval by order statistics. Exit code 1 when the interval's lower
end is below `--at-least`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from edgekd.board.timing import median_interval
from edgekd.data.predictions import image_files

Ours = Literal["file", "array", "engine", "process"]


class Side(NamedTuple):
    """One process: milliseconds of one image, and of the whole process."""

    image_ms: float
    process_ms: float


def main() -> int:
    """Run the rounds and print; return the exit code."""
    ours, theirs = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path, help="engine artifact of a run")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--their-ms", help="regular expression whose first group is their milliseconds of one image")
    parser.add_argument(
        "--ours", choices=("file", "array", "engine", "process"), default="file", help="our figure beside --their-ms"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=600.0, help="of a process, in seconds")
    parser.add_argument("--at-least", type=float, default=0.0, help="ratio that the interval has to lie above")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(ours)
    if args.child:
        print(json.dumps(child(args.engine, args.images, args.ours)))
        return 0
    if not theirs:
        parser.error("give their command after --")
    figure: Ours = args.ours if args.their_ms else "process"
    count = len(image_files([args.images]))
    command = [word.replace("{images}", str(args.images)) for word in theirs]
    sides: dict[str, Callable[[], Side]] = {
        "ours": lambda: run_ours(args.engine, args.images, figure, count, args.timeout),
        "theirs": lambda: run_theirs(command, args.their_ms, count, args.timeout),
    }
    pairs = []
    for number in range(args.rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        found = {name: sides[name]() for name in order}
        pairs.append((found["ours"], found["theirs"]))
        print(
            f"round {number + 1}: ours {found['ours'].image_ms:.3f} ms, theirs {found['theirs'].image_ms:.3f} ms",
            flush=True,
        )
    ratios = [theirs.image_ms / ours.image_ms for ours, theirs in pairs]
    low, high = median_interval(ratios)
    middle = statistics.median(ratios)
    what = "process over images" if figure == "process" else f"{figure} to result" if figure != "engine" else "engine"
    print(
        f"{count} images, our {what}: {statistics.median(o.image_ms for o, _ in pairs):.3f} ms, theirs "
        f"{statistics.median(t.image_ms for _, t in pairs):.3f} ms; theirs over ours {middle:.2f} (95 % {low:.2f} to {high:.2f})"
    )
    if args.json:
        figures = {"ours": [o.image_ms for o, _ in pairs], "theirs": [t.image_ms for _, t in pairs]}
        args.json.write_text(
            json.dumps({**figures, "ratio": [middle, low, high], "figure": figure, "command": command}, indent=1)
        )
    return 0 if low >= args.at_least else 1


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return our arguments and their command, which stands behind `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def run_theirs(command: list[str], pattern: str | None, count: int, timeout_s: float) -> Side:
    """Return their figure of one process; SystemExit when it fails or prints no figure."""
    text, process_ms = _run(command, timeout_s)
    if pattern is None:
        return Side(process_ms / count, process_ms)
    found = [float(one if isinstance(one, str) else one[0]) for one in re.findall(pattern, text)]
    if not found:
        raise SystemExit(f"--their-ms {pattern!r} finds no number in what the command prints; its end: {text[-500:]}")
    return Side(statistics.median(found), process_ms)


def run_ours(engine: Path, images: Path, figure: Ours, count: int, timeout_s: float) -> Side:
    """Return our figure of one process."""
    command = [sys.executable, __file__, str(engine), str(images), "--child", "--ours", figure]
    text, process_ms = _run(command, timeout_s)
    return Side(
        process_ms / count if figure == "process" else float(json.loads(text.splitlines()[-1])[figure]), process_ms
    )


def _run(command: list[str], timeout_s: float) -> tuple[str, float]:
    """Return what a command prints on both streams, and its wall time in ms; SystemExit when it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    process_ms = 1000 * (time.perf_counter() - began)
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {text[-500:]}")
    return text, process_ms


def child(engine: Path, folder: Path, figure: str) -> dict[str, float]:
    """Return the medians in ms over the images: `file`, `array` and `engine`, each image after a warm-up on the first."""
    from edgekd.board.laps import PARTS, wall_time
    from edgekd.board.postprocess import Predictor
    from edgekd.core.artifact import open_artifact
    from edgekd.data.images import read_image
    from edgekd.executors.boards import open_session

    paths = image_files([folder])
    file_ms, array_ms, engine_ms = [], [], []
    with open_session(open_artifact(engine, "engine")) as session:
        predict = Predictor(session)
        warm = wall_time(predict, [read_image(paths[0])])
        for _ in range(0 if figure == "process" else 10):
            warm.run()
        for path in paths:
            began = time.perf_counter_ns()
            image = read_image(path)
            decoded = time.perf_counter_ns()
            way = wall_time(predict, [image])
            started = time.perf_counter_ns()
            way.run()
            ended = time.perf_counter_ns()
            array_ms.append((ended - started) / 1e6)
            file_ms.append((ended - started + decoded - began) / 1e6)
            engine_ms.append(float(way.parts_ns[PARTS.index("engine")]) / 1e6)
    medians = {"file": file_ms, "array": array_ms, "engine": engine_ms}
    return {name: statistics.median(values) for name, values in medians.items()}


if __name__ == "__main__":
    sys.exit(main())

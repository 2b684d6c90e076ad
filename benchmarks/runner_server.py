"""Overhead of the runner's HTTP server per image: the server beside the same work in this process, on the same images.

    python benchmarks/runner_server.py RELEASE                     # an unpacked bundle
    python benchmarks/runner_server.py RELEASE --image photo.jpg --rounds 400

Both sides take the bytes of an image file and end with the line of JSON. The server is a process of its own, `RELEASE/run`,
and its client keeps one connection. The two take turns image by image; an overhead is the difference of a pair, and
the result is the median of the pairs, with its 95 % interval by order statistics.
"""

from __future__ import annotations

import argparse
import http.client
import io
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.runner.engine import Engine, open_engine
from edgekd.runner.frames import Frame
from edgekd.runner.images import decode_image
from edgekd.runner.results import ResultSettings, to_json, to_line

Side = Callable[[bytes], bytes]


def main() -> None:
    """Print the overhead for JPEG, PNG and .npy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="folder of an unpacked bundle")
    parser.add_argument("--image", type=Path, help="default: smooth noise of the network's size")
    parser.add_argument("--rounds", type=int, default=300, help="images of each side and kind")
    given = parser.parse_args()
    with open_engine(given.release) as engine, served(given.release) as ask:
        height, width = engine.spec.preprocess.size
        pixels = np.asarray(Image.open(given.image).convert("RGB")) if given.image else noise(height, width)
        local = in_process(engine)
        print(
            f"{engine.manifest.name}, image {pixels.shape[1]}x{pixels.shape[0]}, {given.rounds} pairs each; milliseconds"
        )
        print("kind   bytes    in process p50   server p50   overhead [95 %]")
        for kind in ("jpeg", "png", "npy"):
            data = as_file(pixels, kind)
            pairs = take_turns(data, local, ask, given.rounds)
            differences = [server - own for own, server in pairs]
            own, server = (statistics.median(side) for side in zip(*pairs, strict=True))
            low, high = interval(differences)
            middle = statistics.median(differences)
            print(f"{kind:5} {len(data):8} {own:14.3f} {server:12.3f} {middle:10.3f} [{low:.3f}, {high:.3f}]")


def noise(height: int, width: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 that compresses as photos do."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def as_file(pixels: np.ndarray, kind: str) -> bytes:
    """Return an image file of `jpeg`, `png` or `npy`."""
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def in_process(engine: Engine) -> Side:
    """Return what the server does with a body, without the server."""
    settings = ResultSettings(engine.selection)

    def run(data: bytes) -> bytes:
        pixels = decode_image(data, "body")
        timed = engine.predictor.timed(pixels)
        return to_line(to_json(Frame("here", 0, time.time(), pixels), timed, engine.spec.classes, settings))

    return run


@contextmanager
def served(release: Path) -> Iterator[Side]:
    """Start the release's server and give what asks it."""
    environment = {**os.environ, "EDGEKD_PYTHON": os.environ.get("EDGEKD_PYTHON", sys.executable)}
    command = ["sh", str(release / "run"), "--http", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().split("http://127.0.0.1:")[1].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def ask(data: bytes) -> bytes:
            connection.request("POST", "/infer", data)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return text

        yield ask
        connection.close()
        process.terminate()


def take_turns(data: bytes, one: Side, other: Side, rounds: int) -> list[tuple[float, float]]:
    """Return milliseconds of both sides in each round; every second round begins with the other one."""
    pairs = []
    for number in range(rounds + 20):  # twenty to warm up
        taken = {}
        for side in (one, other) if number % 2 else (other, one):
            started = time.perf_counter_ns()
            side(data)
            taken[side] = (time.perf_counter_ns() - started) / 1e6
        pairs.append((taken[one], taken[other]))
    return pairs[20:]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median by order statistics."""
    ranked, half = sorted(values), 0.98 * math.sqrt(len(values))
    low = max(0, math.floor(len(values) / 2 - half))
    return ranked[low], ranked[-1 - low]


if __name__ == "__main__":
    main()

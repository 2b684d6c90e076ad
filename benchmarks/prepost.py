"""Times pre- and post-processing beside Pillow and OpenCV doing the same, interleaved in one run, on one core.

    python benchmarks/prepost.py [--image 360 480] [--network 256 320] [--classes 11] [--seconds 3]

Pillow computes the same pixels. OpenCV's INTER_LINEAR does not antialias, so its resize does less: it is the floor that
a vectorised C++ library sets. Prints milliseconds, wall clock and processor time of the thread; the latter stands on a
busy machine. `regions` are smooth logits as a trained network gives them, `noise` is the worst case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.evaluate.semantic import SemanticEvaluator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Size = tuple[int, int]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", nargs=2, type=int, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--network", nargs=2, type=int, default=(256, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=3.0, help="per function")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    image_size, network_size = tuple(args.image), tuple(args.network)
    functions = preprocessing(image_size, network_size) | postprocessing(image_size, network_size, args.classes)
    print(f"image {image_size}, network {network_size}, {args.classes} classes")
    print(f"{'':34}{'wall p50':>10}{'wall p90':>10}{'cpu p50':>10}{'cpu min':>10}{'n':>8}")
    for name, (wall, cpu) in interleaved(functions, args.seconds).items():
        figures = (np.percentile(wall, 50), np.percentile(wall, 90), np.percentile(cpu, 50), cpu.min())
        print(f"{name:34}" + "".join(f"{figure / 1e6:10.3f}" for figure in figures) + f"{len(wall):8}")


def preprocessing(image_size: Size, network_size: Size) -> dict[str, Callable[[], object]]:
    """Return functions that make the float32 NCHW input of a network."""
    image = natural_image(image_size)
    preprocess = Preprocess(network_size, MEAN, STD)
    mean = 255 * np.array(MEAN, np.float32)
    factor = 1 / (255 * np.array(STD, np.float32))

    def normalised(pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(((pixels - mean) * factor).transpose(2, 0, 1)[None])

    def with_pillow() -> np.ndarray:
        resized = Image.fromarray(image).resize(network_size[::-1], Image.Resampling.BILINEAR)
        return normalised(np.asarray(resized))

    def with_opencv() -> np.ndarray:
        return normalised(cv2.resize(image, network_size[::-1], interpolation=cv2.INTER_LINEAR))

    return {
        "pre   edgekd": lambda: prepare(image, preprocess),
        "pre   Pillow + numpy": with_pillow,
        "pre   OpenCV + numpy": with_opencv,
    }


def postprocessing(image_size: Size, network_size: Size, classes: int) -> dict[str, Callable[[], object]]:
    """Return functions that turn logits at the network's size into a class map at the image's, and one that scores."""
    shape = (1, classes, *network_size)
    image = TensorSpec("image", "float32", (1, 3, *network_size), "image")
    output = TensorSpec("logits", "float32", shape, "logits")
    names = tuple(f"class {i}" for i in range(classes))
    spec = ModelSpec("semantic", names, 255, (image,), (output,), Preprocess(network_size))
    regions = smooth_logits(classes, network_size)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    truth, prediction = (class_map({"logits": regions + k * 0.2 * noise}, spec, image_size) for k in (0, 1))
    evaluator = SemanticEvaluator(names)

    def with_opencv() -> np.ndarray:
        planes = [cv2.resize(plane, image_size[::-1], interpolation=cv2.INTER_LINEAR) for plane in regions[0]]
        return np.argmax(planes, axis=0).astype(np.uint8)

    return {
        "post  edgekd, regions": lambda: class_map({"logits": regions}, spec, image_size),
        "post  edgekd, noise": lambda: class_map({"logits": noise}, spec, image_size),
        "post  OpenCV + numpy, regions": with_opencv,
        "score edgekd, all metrics": lambda: evaluator.count(truth, prediction),
    }


def interleaved(functions: dict[str, Callable[[], object]], seconds: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return wall and thread times (N,) in ns of each function, run in turns of ten, the first of a turn dropped."""
    samples: dict[str, list[tuple[int, int]]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end:
        for name, function in functions.items():
            function()
            for _ in range(10):
                wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
                function()
                samples[name].append((time.perf_counter_ns() - wall, time.thread_time_ns() - cpu))
    return {name: tuple(np.array(pairs).T) for name, pairs in samples.items()}


def natural_image(size: Size) -> np.ndarray:
    """Return a smooth image (H, W, 3) uint8 with some noise."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.random((9, 12, 3)), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(255 * coarse + rng.normal(0, 4, (*size, 3)), 0, 255).astype(np.uint8)


def smooth_logits(classes: int, size: Size) -> np.ndarray:
    """Return logits (1, K, H, W) float32 whose argmax has a few dozen regions."""
    coarse = np.random.default_rng(1).normal(size=(6, 8, classes)).astype(np.float32)
    planes = [cv2.resize(coarse[:, :, k], size[::-1], interpolation=cv2.INTER_CUBIC) for k in range(classes)]
    return np.stack(planes)[None]


if __name__ == "__main__":
    main()

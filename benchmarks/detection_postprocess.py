"""What turning a detector's raw heads into objects costs, against the engine that gives the heads.

    python benchmarks/detection_postprocess.py                          # edgedet s at 640x640, detection and instances
    python benchmarks/detection_postprocess.py --variant n --classes 80

Decode, suppression and, for instances, masks at image size, of one 640x640 image, by `edgekd.board.detection`; the engine is
OpenVINO's, fp32. An untrained network finds nothing, so the heads are made: 300 objects on a grid, on each four candidates
of which one stays, on two pyramid levels; the rest of the image is silent. The weights are random: they do not change an
engine's time. Both take turns; the ratio is the median over rounds of post-processing / engine, with its 95 % interval by
order statistics. Exits with 1 when the interval reaches above `--limit`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import torch

from edgekd.board.detection import Selection, detections
from edgekd.board.specs import ModelSpec
from edgekd.core.recipe import Export
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.build import build_model
from edgekd.models.families.edgedet import Options
from edgekd.models.heads import BINS
from edgekd.models.session import torch_spec
from edgekd.targets.base import CompileRequest
from edgekd.targets.openvino import target as openvino

OBJECTS = (15, 20)  # rows and columns of the grid
OFFSETS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the cells of an object that speak


def main() -> int:
    """Measure both tasks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--variant", default="s")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, help="of OpenVINO; default: the physical cores of this machine")
    parser.add_argument("--limit", type=float, default=0.15)
    arguments = parser.parse_args()
    passed = [measure(task, arguments) for task in ("detection", "instance")]
    return 0 if all(passed) else 1


def measure(task: str, arguments: argparse.Namespace) -> bool:
    """Print one task's times; return whether their ratio is within the limit."""
    with tempfile.TemporaryDirectory() as folder, engine(task, arguments, Path(folder)) as session:
        spec = session.spec
        image = np.random.default_rng(0).random(spec.inputs[0].shape, dtype=np.float32)
        heads = made_heads(spec)
        selection = Selection(most=math.prod(OBJECTS))
        size = (arguments.size[0], arguments.size[1])
        found = detections(heads, spec, size, selection)
        assert len(found.boxes) == math.prod(OBJECTS), "the heads do not say what they are made for"
        times: list[tuple[int, int]] = []
        for number in range(arguments.rounds + 10):
            start = perf_counter_ns()
            session.infer({spec.inputs[0].name: image})
            between = perf_counter_ns()
            detections(heads, spec, size, selection)
            if number >= 10:  # the first are warm-up
                times.append((between - start, perf_counter_ns() - between))
        threads = session.runtime["threads"]
    ratios = sorted(post / run for run, post in times)
    half = 0.98 * math.sqrt(len(ratios))
    low, high = (ratios[max(0, min(len(ratios) - 1, round(len(ratios) / 2 + side * half)))] for side in (-1, 1))
    run, post = (statistics.median(side) / 1e6 for side in zip(*times, strict=True))
    holds = high <= arguments.limit
    print(
        f"{task}, edgedet {arguments.variant}, {arguments.classes} classes, {size[0]}x{size[1]}, {threads} threads: engine p50 "
        f"{run:.2f} ms, {len(found.boxes)} objects p50 {post:.2f} ms; ratio {statistics.median(ratios):.3f} "
        f"(95 % {low:.3f} to {high:.3f}, {len(ratios)} rounds): {'within' if holds else 'NOT within'} {arguments.limit:.0%}",
        flush=True,
    )
    return holds


def engine(task: str, arguments: argparse.Namespace, folder: Path) -> openvino.Session:
    """Return an fp32 engine of an untrained network."""
    torch.manual_seed(0)
    model = build_model("edgedet", arguments.variant, task, arguments.classes, Options()).eval()
    names = tuple(f"class {number}" for number in range(arguments.classes))
    settings = Export()
    spec = deployed_spec(torch_spec(model, task, names, tuple(arguments.size)), model, settings)
    spec, _ = export_onnx(model, spec, settings, folder / "model.onnx")
    options = openvino.Options(num_threads=arguments.threads)
    built = openvino.build_engine(CompileRequest(folder / "model.onnx", spec, "fp32", folder, options))
    return openvino.Session(built.engine, built.spec, options)


def made_heads(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Return heads that say the grid of objects: sides of a half to nine tenths of a grid's cell, random masks."""
    rng = np.random.default_rng(1)
    heads = {t.name: np.full(t.shape, -12 if t.role == "scores" else 0, np.float32) for t in spec.outputs}
    for tensor in spec.outputs:
        if tensor.role in ("coefficients", "prototypes"):
            heads[tensor.name] = rng.standard_normal(tensor.shape).astype(np.float32)
    height, width = spec.preprocess.size
    for row in range(OBJECTS[0]):
        for column in range(OBJECTS[1]):
            centre = (row + 0.5) * height / OBJECTS[0], (column + 0.5) * width / OBJECTS[1]
            level = (row + column) % 2
            half_height, half_width = rng.uniform(0.25, 0.45, 2) * (height / OBJECTS[0], width / OBJECTS[1])
            stride = height // spec.all_outputs("scores")[level].shape[2]
            scores, boxes = (heads[spec.all_outputs(role)[level].name][0] for role in ("scores", "boxes"))
            for down, right in OFFSETS:
                y, x = int(centre[0] / stride) - down, int(centre[1] / stride) - right
                scores[(row + column) % len(scores), y, x] = rng.uniform(0, 3)
                at_y, at_x = (y + 0.5) * stride, (x + 0.5) * stride
                sides = (
                    at_x - centre[1] + half_width, at_y - centre[0] + half_height,
                    centre[1] + half_width - at_x, centre[0] + half_height - at_y,
                )  # fmt: skip
                for side, distance in enumerate(sides):
                    boxes[side * BINS : (side + 1) * BINS, y, x] = bins_of(distance / stride)
    return heads


def bins_of(distance: float) -> np.ndarray:
    """Return logits (BINS,) whose expectation is a distance in strides, not negative."""
    low = min(int(max(distance, 0.0)), BINS - 2)
    share = min(max(distance, 0.0) - low, 1.0)
    logits = np.full(BINS, -20.0, np.float32)
    logits[[low, low + 1]] = np.log([max(1 - share, 1e-6), max(share, 1e-6)])
    return logits


if __name__ == "__main__":
    raise SystemExit(main())

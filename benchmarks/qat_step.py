"""What a training step with fake quantization costs, relative to the same distillation step without.

    python benchmarks/qat_step.py --size 128 160 --batch 16 --clock cpu

A step is student forward, teacher forward, `dist` and `bckd`, backward, gradient clipping and AdamW, as in `distill_step.py`. Both
arms run interleaved in one process, in turns, so that a machine that slows down slows both; the ratio is the median over
rounds. `--cached` takes the teacher out, as `trainer.teacher_cache` does. Peak memory is the resident set of a process that ran
that arm alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from edgekd.core import plugins
from edgekd.core.recipe import Export, Method, Train
from edgekd.data.loader import TrainingBatch
from edgekd.distill.base import pyramid_of
from edgekd.distill.teacher import FrozenTeacher
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.session import torch_spec
from edgekd.quantize.qat import fake_quantized
from edgekd.quantize.ranges import calibrate
from edgekd.quantize.schemes import qdq
from edgekd.train.module import DenseTask, Distiller

CLASSES = 11
ARMS = ("distilled", "qat")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[128, 160], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--teacher", default="m", help="variant of edgeseg")
    parser.add_argument("--student", default="n", help="variant of edgeseg")
    parser.add_argument("--cached", action="store_true", help="the teacher's outputs are at hand: no teacher forward")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, all threads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    if args.child:
        _rounds(args, [args.child], 3)
        # Linux counts ru_maxrss in KiB.
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        return 0
    memory = {arm: _in_child(arm) for arm in ARMS}  # first, while this process is small: a child starts with its peak
    seconds = _rounds(args, list(ARMS), args.rounds)
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    height, width = args.size
    print(
        f"edgeseg {args.student}, teacher {args.teacher}{' cached' * args.cached}, {args.batch} x {height}x{width}, "
        f"{args.threads} threads, torch {torch.__version__}, {args.rounds} rounds, {args.clock} time"
    )
    for arm in ARMS:
        print(f"{arm:<10} {1000 * statistics.median(seconds[arm]):8.0f} ms/step p50 {memory[arm]:8.0f} MiB peak")
    print(f"qat / distilled: time {ratio:.2f}, peak memory {memory['qat'] / memory['distilled']:.2f}")
    return 0


def _rounds(args: argparse.Namespace, names: list[str], rounds: int) -> dict[str, list[float]]:
    teacher = _network(args.teacher)
    arms = {name: _Arm(args, name, teacher) for name in names}
    batch = _batch(args, teacher)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):  # the first warms up
        for name in names[number % len(names) :] + names[: number % len(names)]:
            elapsed = arms[name].step(batch)
            if number:
                seconds[name].append(elapsed)
    return seconds


class _Arm:
    def __init__(self, args: argparse.Namespace, name: str, teacher: DenseModel) -> None:
        student = _network(args.student)
        pyramids = pyramid_of(teacher, CLASSES, "semantic"), pyramid_of(student, CLASSES, "semantic")
        methods = {}
        for method in ("dist", "bckd"):
            plugin = plugins.load("methods", method)
            methods[method] = (Method(warmup=0.0), plugin.Method(plugin.Options(), *pyramids))
        if name == "qat":
            _quantize(student, tuple(args.size))
        self.task = DenseTask(student, Train(steps=10_000), Distiller(FrozenTeacher(teacher), methods), True).train()
        self.task.on_fit_start()
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=1e-4)
        self.clock = time.process_time if args.clock == "cpu" else time.perf_counter

    def step(self, batch: TrainingBatch) -> float:
        start = self.clock()
        loss = self.task.training_step(batch, 0)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.task.parameters(), 5.0)
        self.optimizer.step()
        return self.clock() - start


def _quantize(student: DenseModel, size: tuple[int, int]) -> None:
    with TemporaryDirectory() as folder:
        path, settings = Path(folder) / "model.onnx", Export()
        trained = torch_spec(student.eval(), "semantic", tuple(map(str, range(CLASSES))), size)
        spec, _ = export_onnx(student, deployed_spec(trained, student, settings), settings, path)
        placement = qdq.grids(path, spec, qdq.Options())
        image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
        fake_quantized(student, path, placement, calibrate(path, placement, [{"image": image}]))


def _batch(args: argparse.Namespace, teacher: DenseModel) -> TrainingBatch:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.batch, 3, *args.size), generator=random, dtype=torch.uint8)
    masks = torch.randint(0, CLASSES, (args.batch, *args.size), generator=random, dtype=torch.uint8)
    if not args.cached:
        return TrainingBatch(images, masks)
    outputs = FrozenTeacher(teacher)(images.float().div(255))
    return TrainingBatch(images, masks, teacher_outputs={k: v.contiguous() for k, v in outputs.tensors().items()})


def _network(variant: str) -> DenseModel:
    torch.manual_seed(0)
    return build_model("edgeseg", variant, "semantic", CLASSES, plugins.load("families", "edgeseg").Options())


def _in_child(arm: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", arm]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())

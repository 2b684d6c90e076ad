"""What a training step costs with each distillation method, relative to logit distillation (`kd`).

    python benchmarks/distill_step.py --size 256 320 --batch 4 --limit 1.25
    python benchmarks/distill_step.py --size 96 128 --batch 16 --cached --base dist --arms dist+bckd

A step is everything `edgekd run` does on one batch: student forward, teacher forward, losses, backward, gradient
clipping, optimizer. With `--cached` the teacher's outputs are at hand, as with `trainer.teacher_cache`. All arms run
interleaved in one process, in rotating order, so that a machine that slows down slows all of them; the ratio is the
median over rounds of arm / base (`kd`) of the same round. On a machine that others use too,
`--clock cpu --threads 1` measures the processor time of the step instead of the time on the wall. Peak memory is the
resident set (`ru_maxrss`) of a process that ran that arm alone, so it includes Python and torch.

Exit code 1 when an arm with `bckd` takes more than `--limit` times the time of the base, or `--memory-limit` times its memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from edgekd.core import plugins
from edgekd.core.recipe import Method, Train
from edgekd.data.loader import TrainingBatch
from edgekd.distill.base import pyramid_of
from edgekd.distill.teacher import FrozenTeacher
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model, count
from edgekd.train.callbacks import depthwise_in_float32
from edgekd.train.module import DenseTask, Distiller

CLASSES = 11
COMBINATIONS = ["kd+bckd", "dist+bckd"]


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.child:
        print(json.dumps(_alone(args, args.child)))
        return 0
    arms = list(dict.fromkeys([args.base, *args.arms]))
    # First, while this process is small: a child starts with its parent's resident set as its peak.
    memory = {arm: _in_child(arm) for arm in arms} if args.memory else {}
    print(f"teacher {_describe(args, args.teacher)}\nstudent {_describe(args, args.student)}")
    print(
        f"input {args.size[0]}x{args.size[1]}, batch {args.batch}, {args.precision}, "
        f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}, {args.rounds} rounds, {args.clock} time"
    )
    seconds = _interleaved(args, arms)
    ratios = {
        arm: statistics.median(a / k for a, k in zip(seconds[arm], seconds[args.base], strict=True)) for arm in arms
    }
    print(
        f"\n{'arm':<12} {'ms/step p50':>12} {'p90':>8} {'ratio to ' + args.base:>16}"
        + f" {'peak MiB':>9}" * args.memory
    )
    for arm in args.arms:
        times = sorted(1000 * s for s in seconds[arm])
        p90 = times[min(len(times) - 1, int(0.9 * len(times)))]
        peak = f" {memory[arm]:>9.0f}" if args.memory else ""
        print(f"{arm:<12} {statistics.median(times):>12.1f} {p90:>8.1f} {ratios[arm]:>16.3f}{peak}")
    failed = []
    for arm in (name for name in args.arms if "bckd" in name.split("+")):
        found = {"time": (args.limit, ratios[arm])} if args.limit else {}
        if args.memory_limit:
            found["peak memory"] = (args.memory_limit, memory[arm] / memory[args.base])
        failed += [
            f"{arm}: {what} {ratio:.3f} times {args.base}'s, limit {limit:g}"
            for what, (limit, ratio) in found.items()
            if ratio > limit
        ]
    if failed:
        print(f"\nFAILED: {'; '.join(failed)}")
    return 1 if failed else 0


class Arm:
    """One student in training with one combination of methods; `step` runs one whole training step."""

    def __init__(self, args: argparse.Namespace, methods: str, teacher: DenseModel) -> None:
        student = _network(args.student)
        pyramids = pyramid_of(teacher, CLASSES, "semantic"), pyramid_of(student, CLASSES, "semantic")
        modules = {}
        for name in methods.split("+"):
            plugin = plugins.load("methods", name)
            modules[name] = (Method(warmup=0.0), plugin.Method(plugin.Options(), *pyramids))
        # The plain student needs no teacher: that is what its step costs in a pipeline.
        distiller = None if methods == "none" else Distiller(FrozenTeacher(teacher), modules)
        self.task = DenseTask(student, Train(steps=10_000), distiller, args.channels_last).train()
        self.task.on_fit_start()
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=1e-4)
        self.bf16 = args.precision == "bf16-mixed"
        if self.bf16:
            depthwise_in_float32(self.task)
        self.clock = time.process_time if args.clock == "cpu" else time.perf_counter

    def step(self, batch: TrainingBatch) -> float:
        """Run one training step and return its seconds."""
        start = self.clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.task.training_step(batch, 0)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.task.parameters(), 5.0)
        self.optimizer.step()
        return self.clock() - start


def _interleaved(args: argparse.Namespace, names: list[str]) -> dict[str, list[float]]:
    teacher = _network(args.teacher)
    arms = {name: Arm(args, name, teacher) for name in names}
    batch = _batch(args, teacher)
    for arm in arms.values():
        for _ in range(args.warmup):
            arm.step(batch)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(args.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(arms[name].step(batch))
    return seconds


def _alone(args: argparse.Namespace, name: str) -> dict[str, float]:
    teacher = _network(args.teacher)
    arm, batch = Arm(args, name, teacher), _batch(args, teacher)
    for _ in range(3):
        arm.step(batch)
    # Linux counts ru_maxrss in KiB.
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _in_child(arm: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", arm]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])["peak_mib"]


def _batch(args: argparse.Namespace, teacher: DenseModel) -> TrainingBatch:
    """Return uint8 images and masks of large regions with a padded corner, with `--cached` also the teacher's outputs."""
    random = torch.Generator().manual_seed(0)
    height, width = args.size
    coarse = torch.rand(args.batch, 3, height // 16, width // 16, generator=random)
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") * 255
    labels = torch.randint(0, CLASSES, (args.batch, 1, height // 32, width // 32), generator=random)
    masks = torch.nn.functional.interpolate(labels.float(), size=(height, width)).squeeze(1)
    masks[:, : height // 8, : width // 8] = 255
    images, masks = images.to(torch.uint8), masks.to(torch.uint8)
    if not args.cached:
        return TrainingBatch(images, masks)
    outputs = FrozenTeacher(teacher)(images.float().div(255).contiguous(memory_format=torch.channels_last))
    # As the loader gives them: stacked from files, so contiguous.
    return TrainingBatch(images, masks, teacher_outputs={k: v.contiguous() for k, v in outputs.tensors().items()})


def _network(name: str) -> DenseModel:
    """Return `family:variant` or `family:variant:encoder` with random weights; the same ones every time."""
    family, variant, *encoder = name.split(":")
    options = plugins.load("families", family).Options(*encoder)
    torch.manual_seed(0)
    return build_model(family, variant, "semantic", CLASSES, options)


def _describe(args: argparse.Namespace, name: str) -> str:
    params, macs = count(_network(name), tuple(args.size))
    return f"{name}: {params / 1e6:.2f} M parameters, {macs / 1e9:.2f} G MACs"


def _every_arm() -> list[str]:
    """Return every method of segmenters, and the combinations that are usual."""
    methods = [name for name in plugins.names("methods") if "semantic" in plugins.load("methods", name).TASKS]
    return [*methods, *COMBINATIONS]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 320], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--teacher", default="edgeseg:l", help="family:variant[:encoder], e.g. smp:fpn:resnet18")
    parser.add_argument("--student", default="edgeseg:n", help="family:variant[:encoder]")
    parser.add_argument("--arms", nargs="+", default=_every_arm(), help="methods, several joined by +; default all")
    parser.add_argument("--base", default="kd", help="the arm whose time is 1")
    parser.add_argument("--cached", action="store_true", help="the teacher's outputs are at hand: no teacher forward")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, all threads")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default as torch chooses")
    parser.add_argument("--contiguous", dest="channels_last", action="store_false", help="not channels_last")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure peak memory")
    parser.add_argument("--limit", type=float, help="exit 1 when a step with bckd takes more times the base's")
    parser.add_argument("--memory-limit", type=float, help="exit 1 when bckd needs more times the base's peak memory")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if (args.limit or args.memory_limit) and not any("bckd" in arm for arm in args.arms):
        parser.error("the limits are for arms with bckd; name one in --arms")
    if args.memory_limit and not args.memory:
        parser.error("--memory-limit needs the peak memory; leave out --no-memory")
    return args


if __name__ == "__main__":
    sys.exit(main())

"""What a training step under bf16 costs on this CPU when depthwise convolutions stay in float32, as edgekd's do.

    python benchmarks/depthwise_bf16.py --encoder tf_efficientnet_lite2 --size 256 256

Forward and backward of a timm encoder, three ways interleaved in one process: float32, bf16 autocast, and bf16 autocast
with `depthwise_in_float32`. Processor time, so that other work on the machine counts little; the ratio is the median over
rounds of the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

import timm
import torch

from edgekd.train.callbacks import depthwise_in_float32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="tf_efficientnet_lite2")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 256], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = timm.create_model(args.encoder, features_only=True).to(memory_format=torch.channels_last).train()
    images = torch.randn(args.batch, 3, *args.size).contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {"float32": [], "bf16": [], "bf16, depthwise float32": []}
    for round_ in range(args.rounds + 1):  # the first warms up
        for name, times in seconds.items():
            elapsed = _step(network, images, name)
            if round_:
                times.append(elapsed)
    print(
        f"{args.encoder}, {args.batch} x {args.size[0]}x{args.size[1]}, {args.threads} threads, torch {torch.__version__}"
    )
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["bf16"], strict=True))
        print(f"{name:<24} {1000 * statistics.median(times):8.0f} ms  {ratio:.2f} of bf16")
    return 0


def _step(network: torch.nn.Module, images: torch.Tensor, how: str) -> float:
    with ExitStack() as stack:
        for hook in depthwise_in_float32(network) if "depthwise" in how else []:
            stack.callback(hook.remove)
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=how != "float32"):
            features = network(images)
        sum(x.float().square().mean() for x in features).backward()
        return time.process_time() - start


if __name__ == "__main__":
    raise SystemExit(main())

"""Budget search on planted outliers: does the engine hold the budget, and is there a cheaper choice of float layers?

    python benchmarks/budget_search.py [--target onnxruntime|openvino] [--first 0] [--cases 10] [--no-exhaustive]

Each case is a random segmenter of 8 convolutions that labels random images itself (the pixels of the larger margins), so float has
an mIoU of 1. One or two of its three pairs of convolutions get range outliers (factors 2^7 to 2^9) that leave the float function as
it is. The recipe allows a drop of 0.05. The search is that of the stages `sensitivity` and `mixed`. Then every set of float
layers is built in the order of its multiply-adds until one holds the budget: the cheapest choice.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgekd.core import plugins
from edgekd.core.stage import StageJob
from edgekd.sensitivity.mixed import EngineTrials
from tests.unit.sensitivity.planted import PAIRS, blown_up, deep_segmenter
from tests.unit.sensitivity.planted_run import budgeted, exported, layers_of, planted_recipe, ranked

HEADER = "| case | planted | drop of int8 | float layers | share of MACs | engine drop | engines | seconds | cheapest | ratio |"


def one_case(seed: int, target: str, is_exhaustive: bool, folder: Path) -> tuple[str, float, float]:
    """Return a row of the table, the engine's drop, and the MACs of the float layers over those of the cheapest choice."""
    model, spec = deep_segmenter(seed)
    rng = np.random.default_rng(seed)
    pairs = [PAIRS[i] for i in sorted(rng.choice(len(PAIRS), rng.integers(1, 3), replace=False))]
    for pair in pairs:
        blown_up(model, pair, 2.0 ** rng.integers(7, 10), seed)
    recipe = planted_recipe(folder, model, spec, {"target": target, "precision": "mixed"})
    export = exported(folder, model, spec)
    started = time.monotonic()
    sensitivity = ranked(folder, recipe, export, plugins.target(target).info.quantizer)
    found = budgeted(folder, recipe, export, sensitivity)
    seconds = time.monotonic() - started
    layers = layers_of(sensitivity)
    macs = {layer["name"]: layer["macs"] for layer in layers["layers"]}
    best, ratio = "", 0.0
    if is_exhaustive:
        (folder / "trials").mkdir()
        job = StageJob(recipe, {"export": export}, folder)
        trials = EngineTrials(job, recipe.engines[0], layers, folder / "trials")
        names = cheapest(trials, macs, found["max_drop"])
        best, ratio = " ".join(names), sum(macs[n] for n in found["floats"]) / max(sum(macs[n] for n in names), 1)
    shown = f"{ratio:.2f}" if is_exhaustive else ""
    planted = " ".join(b for _, b in pairs)
    row = (
        f"| {seed} | {planted} | {layers['drop_all_int8']:.3f} | {' '.join(found['floats'])} | "
        f"{found['float_macs_share']:.0%} | {found['drop']:.4f} | {found['trials']} | {seconds:.0f} | {best} | {shown} |"
    )
    return row, found["drop"], ratio


def cheapest(trials: EngineTrials, macs: dict[str, int], max_drop: float) -> tuple[str, ...]:
    """Return the set of float layers with the fewest multiply-adds whose engine holds the budget; every set is tried in turn."""
    sets = [some for count in range(len(macs) + 1) for some in combinations(macs, count)]
    for some in sorted(sets, key=lambda one: sum(macs[name] for name in one)):
        if trials.drop(frozenset(some)) <= max_drop:
            return some
    raise AssertionError("float misses the budget")


def main() -> None:
    """Print the table, and how many cases hold the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--no-exhaustive", action="store_true")
    given = parser.parse_args()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    print(f"{HEADER}\n{'| --- ' * HEADER.count(' | ')}| --- |", flush=True)
    results = []
    for seed in range(given.first, given.first + given.cases):
        with TemporaryDirectory() as text:
            row, drop, ratio = one_case(seed, given.target, not given.no_exhaustive, Path(text))
        print(row, flush=True)
        results.append({"seed": seed, "drop": drop, "ratio": ratio})
    held = sum(one["drop"] <= 0.05 for one in results)
    print(
        f"\n{held} of {len(results)} engines hold the budget; largest ratio {max(one['ratio'] for one in results):.2f}"
    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()

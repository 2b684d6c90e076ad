"""How many images the ranking of layers needs: noise of each layer alone on 4 to 96 selection images of a finished run.

    python benchmarks/ranking_images.py RECIPE RUN [--quantizer qdq]

The recipe is that of the run, with a `quantize.budget`. CPU seconds are those of all layers together.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.core.artifact import open_artifact
from edgekd.core.recipe_loading import load_recipe
from edgekd.quantize.stage import Prepared
from edgekd.sensitivity.reference import Reference
from edgekd.sensitivity.scoring import SelectionImages
from edgekd.sensitivity.stage import reference_of

COUNTS = (96, 32, 16, 8, 4)


def alone(reference: Reference, inputs: Prepared) -> tuple[dict[str, float], float]:
    """Return the SQNR of each operator alone, and the CPU seconds that it took."""
    started = time.process_time()
    noise = reference.noise(inputs)
    return {name: noise.db((name,)) for name in reference.nodes}, time.process_time() - started


def main() -> None:
    """Print a table: agreement with the most images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("run", type=Path)
    parser.add_argument("--quantizer", default="qdq")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, [f"quantize.budget.images={COUNTS[0]}"])
    budget = recipe.quantize.budget
    assert budget is not None
    recipe = recipe.only("data", f"quantize:ptq/{given.quantizer}", "evaluate")
    export, images = open_artifact(given.run / "export"), SelectionImages.of(recipe, budget)
    print(
        "| images | CPU s | same 5 worst layers | pairs in the same order | largest change, dB |\n| --- | --- | --- | --- | --- |"
    )
    with TemporaryDirectory() as folder:
        reference = reference_of(recipe, export, given.quantizer, Path(folder))
        most: dict[str, float] = {}
        for count in COUNTS:
            step = max(1, len(images.indices) // count)
            found, seconds = alone(reference, Prepared(images.dataset, images.indices[::step][:count], export.spec))
            most = most or found
            worst = [sorted(one, key=lambda name, one=one: one[name])[:5] for one in (most, found)]  # type: ignore[misc]
            pairs = list(combinations(reference.nodes, 2))
            same = sum((most[a] < most[b]) == (found[a] < found[b]) for a, b in pairs) / max(len(pairs), 1)
            change = max(abs(most[name] - found[name]) for name in reference.nodes)
            print(f"| {count} | {seconds:.1f} | {worst[0] == worst[1]} | {same:.3f} | {change:.2f} |", flush=True)


if __name__ == "__main__":
    main()

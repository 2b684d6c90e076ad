"""Whether torch, the ONNX file and the fp32 engines of a run find the same objects in real images.

    python benchmarks/same_detections.py runs/bccd --images 50

Each network runs through its own contract, decode and suppression, on images of the scored split; boxes are in the image's
pixels. A detection of torch is found again when the other has one of its class with IoU of at least 0.99 and a score within
1e-3, and the other way round. Scores within 1e-3 of the least that is kept (0.05, or the last of an image's 100) may be on either
side of it, and are not asked for.
Exits with 1 when one is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from edgekd.board.detection import Detections, Selection
from edgekd.board.parity import SAME, is_alike
from edgekd.board.postprocess import Predictor
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.recipe import Recipe
from edgekd.data.splits import open_split
from edgekd.evaluate.stage import picture_indices
from edgekd.executors.boards import open_session, why_not_here
from edgekd.planning import deployed_student


def main() -> int:
    """Print a line per network; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=50)
    arguments = parser.parse_args()
    recipe = Recipe.model_validate(json.loads((arguments.run / "report.json").read_text())["recipe"])
    dataset = open_split(recipe, recipe.data.val)
    images = [dataset.load(index).image for index in picture_indices(len(dataset), arguments.images)]
    expected = found_by(open_artifact(arguments.run / deployed_student(recipe), "checkpoint"), images)
    print(f"{len(images)} images of {recipe.data.val}, torch finds {sum(len(one.boxes) for one in expected)} objects")
    fp32 = [one for one in recipe.engines if one.precision == "fp32" and not why_not_here(one)]
    others = [
        open_artifact(arguments.run / "export", "onnx"),
        *(open_artifact(arguments.run / "engine" / one.id, "engine") for one in fp32),
    ]
    missing = 0
    for artifact in others:
        found = found_by(artifact, images)
        lonely = sum(without_counterpart(*pair) for pair in zip(expected, found, strict=True))
        missing += lonely
        print(f"{artifact.path.name}: {sum(len(one.boxes) for one in found)} objects, {lonely} without a counterpart")
    return int(missing > 0)


def found_by(network: Artifact, images: list[np.ndarray]) -> list[Detections]:
    """Return what a network finds in each image."""
    with open_session(network) as session:
        predict = Predictor(session)
        return [predict(image) for image in images]


def without_counterpart(one: Detections, other: Detections) -> int:
    """Return how many clear detections of each have none in the other."""
    alike = is_alike(one, other, SAME["fp32"])
    clear = max(least_kept(one), least_kept(other)) + SAME["fp32"].score
    return int((~alike.any(axis=1) & (one.scores > clear)).sum() + (~alike.any(axis=0) & (other.scores > clear)).sum())


def least_kept(found: Detections) -> float:
    """Return the score below which nothing was kept: the least asked for or, of as many as may be, the last one's."""
    selection = Selection()
    return float(found.scores[-1]) if len(found.scores) == selection.most else selection.min_score


if __name__ == "__main__":
    raise SystemExit(main())

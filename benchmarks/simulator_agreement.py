"""Compares class maps of a run's simulated engines with ONNX Runtime's, pixel by pixel, on validation images.

    python benchmarks/simulator_agreement.py runs/quickstart --images 32

For each engine of a target that has a simulator (rknn): the share of pixels with the same class as the float ONNX file and
as the int8 engine of ONNX Runtime, if the run has one, which is made from the same calibration images; and the mIoU of all
of them. Class maps are at image size. A simulator is not the chip, and says nothing about time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.board.postprocess import class_map, predict
from edgekd.board.preprocess import prepare
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.recipe import Recipe
from edgekd.core.session import open_session
from edgekd.data.base import Sample
from edgekd.data.open import open_split
from edgekd.evaluate.confusion import confusion_matrix, miou
from edgekd.executors.simulator import SESSION, simulate


def main() -> None:
    """Print a table: one line per network and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    recipe = Recipe.model_validate(json.loads((arguments.run / "report.json").read_text())["recipe"])
    dataset = open_split(recipe.data, recipe.data.val)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, arguments.images).astype(int))
    samples = [dataset.load(int(i)) for i in chosen]
    export = open_artifact(arguments.run / "export", "onnx")
    engines = [open_artifact(path, "engine") for path in sorted((arguments.run / "engine").iterdir())]
    maps = {"onnx-fp32": run(export, samples)}
    for engine in engines:
        if engine.path.name == "onnxruntime-int8":
            maps[engine.path.name] = run(engine, samples)
        elif hasattr(plugins.load("targets", engine.details["target"]), SESSION):
            maps[f"{engine.path.name} (simulator)"] = run_simulated(engine, samples)
    print(f"{len(samples)} images of {recipe.data.val}\n")
    print(
        "| class map | mIoU | " + " | ".join(f"agrees with {name}" for name in maps if "simulator" not in name) + " |"
    )
    print("|---" * (2 + sum("simulator" not in name for name in maps)) + "|")
    for name, found in maps.items():
        shares = [agreement(found, other) for key, other in maps.items() if "simulator" not in key]
        score = miou(sum_of_matrices(samples, found, len(export.spec.classes)))
        print(f"| {name} | {score:.4f} | " + " | ".join(f"{share:.2%}" for share in shares) + " |")


def run(network: Artifact, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the class map of each sample, computed here."""
    with open_session(network) as session:
        return [predict(session, sample.image) for sample in samples]


def run_simulated(engine: Artifact, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the class map of each sample, computed by the toolchain's simulator."""
    (image,) = engine.spec.inputs
    outputs, _ = simulate(engine, ({image.name: prepare(s.image, engine.spec.preprocess)} for s in samples))
    return [
        class_map(found, engine.spec, sample.image.shape[:2]) for found, sample in zip(outputs, samples, strict=True)
    ]


def agreement(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Return the share of pixels of all images that have the same class."""
    return float(np.mean([np.mean(a == b) for a, b in zip(one, other, strict=True)]))


def sum_of_matrices(samples: Sequence[Sample], maps: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Return the confusion matrix over all images."""
    return np.sum([confusion_matrix(s.mask, found, classes) for s, found in zip(samples, maps, strict=True)], axis=0)


if __name__ == "__main__":
    main()

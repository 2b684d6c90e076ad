"""Compares class maps of a run's engines with ONNX Runtime's, pixel by pixel, on validation images.

    python benchmarks/engine_agreement.py runs/quickstart --images 32

For each engine that runs here, or whose toolchain has a simulator (rknn): the share of pixels with the same class as the
float ONNX file and as the int8 engine of ONNX Runtime, if the run has one, which is made from the same calibration images;
and the mIoU of all of them. Class maps are at image size. Engines that cannot run here are named with the reason. A
simulator is not the chip, and says nothing about time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.board.postprocess import Predictor, class_map
from edgekd.board.preprocess import prepare
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import LOCAL, Recipe
from edgekd.data.base import Sample
from edgekd.data.splits import open_split
from edgekd.evaluate.confusion import confusion_matrix, miou
from edgekd.executors.boards import ask_why_not, open_session
from edgekd.executors.simulator import simulate
from edgekd.executors.toolchain import ToolchainExecutor

REFERENCES = ("onnx-fp32", "onnxruntime-int8")


def main() -> None:
    """Print a table: one line per network and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    recipe = Recipe.model_validate(json.loads((arguments.run / "report.json").read_text())["recipe"])
    dataset = open_split(recipe, recipe.data.val)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, arguments.images).astype(int))
    samples = [dataset.load(int(i)) for i in chosen]
    export = open_artifact(arguments.run / "export", "onnx")
    engines = [open_artifact(path, "engine") for path in sorted((arguments.run / "engine").iterdir())]
    maps = {REFERENCES[0]: run(export, samples)}
    for engine in engines:
        name, given = engine.details["target"], engine.details["options"]
        target = plugins.target(name)
        if target.simulator is not None:
            maps[f"{engine.path.name} (simulator)"] = run_simulated(engine, samples)
        elif reason := ask_why_not(LOCAL, [(name, plugin_options("targets", name, given, "options"))])[0]:
            print(f"{engine.path.name}: built, not run: {reason}")
        else:
            maps[engine.path.name] = run(engine, samples)
    references = [name for name in REFERENCES if name in maps]
    print(f"{len(samples)} images of {recipe.data.val}\n")
    print("| class map | mIoU | " + " | ".join(f"agrees with {name}" for name in references) + " |")
    print("|---" * (2 + len(references)) + "|")
    for name, found in maps.items():
        shares = " | ".join(f"{agreement(found, maps[other]):.2%}" for other in references)
        score = miou(sum_of_matrices(samples, found, len(export.spec.classes)))
        print(f"| {name} | {score:.4f} | {shares} |")


def run(network: Artifact, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the class map of each sample, computed here."""
    with open_session(network) as session:
        predict = Predictor(session)
        return [predict(sample.image) for sample in samples]


def run_simulated(engine: Artifact, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the class map of each sample, computed by the toolchain's simulator."""
    (image,) = engine.spec.inputs
    inputs = ({image.name: prepare(sample.image, engine.spec.preprocess)} for sample in samples)
    outputs, _ = simulate(engine, inputs, ToolchainExecutor(engine.details["target"]))
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

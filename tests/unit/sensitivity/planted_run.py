"""A data set that a network labels itself, and the stages of this package run on it; so the float network's mIoU is 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from PIL import Image

from edgekd.board.specs import ModelSpec
from edgekd.core.artifact import Artifact, StageFacts, StageResult, publish
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import StageJob
from edgekd.executors.local import open_reference
from edgekd.sensitivity import mixed, stage
from tests.small_nets import CLASSES, images, prepared

PICTURES = 48


def planted_recipe(folder: Path, model: onnx.ModelProto, spec: ModelSpec, *engines: dict[str, Any]) -> Recipe:
    """Write images with the network's own class maps as labels; return a recipe with them and some engines."""
    onnx.save(model, folder / "float.onnx")
    pictures = images(PICTURES, seed=7)
    with open_reference(folder / "float.onnx", spec) as session:
        labels = [confident(session.infer(prepared(spec, picture))["logits"]) for picture in pictures]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        split = "val" if number % 12 == 0 else "train"
        for kind, pixels in (("images", picture), ("masks", label)):
            path = folder / "data" / kind / split / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "data/classes.txt").write_text("\n".join(CLASSES))
    network = {"family": "edgeseg", "variant": "n", "train": {"steps": 1}}
    tree = {
        "name": "planted",
        "data": {"format": "folder", "options": {"root": str(folder / "data")}, "size": [32, 48]},
        "teacher": network,
        "student": network,
        "quantize": {"images": 16, "budget": {"max_drop": 0.05, "images": 24}},
        "engines": list(engines) or [{"target": "onnxruntime", "precision": "mixed"}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return load_recipe(str(folder / "recipe.yaml"), [])


def confident(logits: np.ndarray) -> np.ndarray:
    """Return the class of each pixel (H, W); 255 for the half whose two best classes are closest, which any rounding flips."""
    ordered = np.sort(logits[0], axis=0)
    margin = ordered[-1] - ordered[-2]
    return np.where(margin > np.median(margin), logits[0].argmax(axis=0), 255).astype(np.uint8)


def exported(folder: Path, model: onnx.ModelProto, spec: ModelSpec) -> Artifact:
    """Return a network as an artifact of the export stage."""
    work = folder / "work-export"
    work.mkdir()
    onnx.save(model, work / "model.onnx")
    return publish(
        work,
        folder / "export",
        {"kind": "onnx", "stage": "export", "key": "k"},
        StageResult(spec, {"params": 1, "macs": 1}),
    )


def ranked(folder: Path, recipe: Recipe, export: Artifact, quantizer: str) -> Artifact:
    """Return the artifact of the sensitivity stage."""
    work = folder / "work-sensitivity"
    work.mkdir()
    result = stage.run(StageJob(recipe, {"export": export}, work, quantizer))
    facts: StageFacts = {"kind": "sensitivity", "stage": "sensitivity", "key": "k"}
    return publish(work, folder / "sensitivity", facts, result)


def layers_of(sensitivity: Artifact) -> dict[str, Any]:
    """Return the content of `layers.json`."""
    found: dict[str, Any] = json.loads(sensitivity.file("layers.json").read_text())
    return found


def budgeted(folder: Path, recipe: Recipe, export: Artifact, sensitivity: Artifact) -> dict[str, Any]:
    """Run the stage of the recipe's only engine; return its facts of the budget."""
    (engine,) = recipe.engines
    out = folder / f"mixed-{engine.id}"
    out.mkdir()
    job = StageJob(recipe, {"sensitivity": sensitivity, "export": export}, out, engine.id)
    found: dict[str, Any] = mixed.run(job).details["budget"]
    return found

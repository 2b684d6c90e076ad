"""A small valid recipe for the tests of the core, as a tree and as a file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "data": {"format": "scenes", "size": [64, 96], "augment": {"flip": 0.5}},
    "teacher": {"family": "edgeseg", "variant": "s", "floor": 0.4, "train": {"steps": 20}},
    "student": {"family": "edgeseg", "variant": "n", "train": {"steps": 10}},
    "distill": {"methods": {"kd": {"weight": 1.0}}},
    "engines": [
        {"target": "onnxruntime", "precision": "fp32"},
        {"target": "openvino", "precision": "int8"},
    ],
}


def write_recipe(folder: Path, **sections: Any) -> Path:
    """Write the small recipe with some sections replaced and return its file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(SMALL), **sections}))
    return path


def small_recipe(folder: Path, *overrides: str, **sections: Any) -> Recipe:
    """Return the small recipe, loaded, with some sections replaced."""
    return load_recipe(str(write_recipe(folder, **sections)), overrides)

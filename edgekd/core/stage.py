"""A stage: named inputs, one artifact out, a cache key. Stages know each other only by the names of artifacts."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.artifact import Artifact, StageResult, package_version
from edgekd.core.recipe import Recipe


@dataclass(frozen=True)
class StageJob:
    """What a stage function gets: the sections of the recipe it may read, its input artifacts, its folder, its part.

    `part` is what tells apart stages of one kind: an engine id, a quantizer, the artifact to score.
    """

    recipe: Recipe
    inputs: dict[str, Artifact]
    out_dir: Path
    part: str = ""


@dataclass(frozen=True)
class Stage:
    """One node of the pipeline.

    name: also the artifact's folder, e.g. `engine/openvino-int8`.
    kind: of the artifact.
    function: `package.module:function` taking a StageJob; imported when the stage runs, not before.
    inputs: names of the stages whose artifacts it reads.
    reads: the recipe sections it may read; they make the cache key. `trainer` may be read and is never in the key.
    """

    name: str
    kind: str
    function: str
    inputs: tuple[str, ...]
    reads: tuple[str, ...]
    part: str = ""

    def key(self, recipe: Recipe, inputs: dict[str, Artifact]) -> str:
        """Return the cache key: hash of what the stage reads and of the manifests it builds on."""
        content = {
            "stage": [self.name, self.kind, self.function, self.part],
            "edgekd": package_version("edgekd"),
            "task": recipe.task,
            "seed": recipe.seed,
            "config": self._config(recipe),
            "inputs": {name: inputs[name].sha256() for name in sorted(self.inputs)},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def run(self, recipe: Recipe, inputs: dict[str, Artifact], out_dir: Path) -> StageResult:
        """Import and run the stage's function on the sections it declared."""
        module, _, name = self.function.partition(":")
        function: Callable[[StageJob], StageResult] = getattr(importlib.import_module(module), name)
        return function(StageJob(recipe.only(*self.reads), inputs, out_dir, self.part))

    def _config(self, recipe: Recipe) -> dict[str, object]:
        sections = {read.partition(":")[0] for read in self.reads} - {"trainer"}
        return recipe.only(*self.reads).model_dump(mode="json", include=sections)

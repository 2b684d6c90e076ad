"""A stage: named inputs, one artifact out, a cache key. Stages know each other only by the names of artifacts."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgekd.board.files import sha256_of
from edgekd.core.artifact import Artifact, StageResult, package_version
from edgekd.core.plugins import packages_of
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import PATH_OPTIONS
from edgekd.core.third_party import sources


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
    part: see StageJob.
    keyless: recipe keys in those sections that do not change the artifact, e.g. `teacher.floor`.
    outside: `package.module:function` taking those sections and returning (JSON) the state of what lies outside the
        run and may change, e.g. a data set's files. Checkpoints that the sections name are covered without it.
    gates: those of `inputs` that can only stop the stage, e.g. the teacher's score; they are not in the key.
    counts: input -> `package.module:function` taking its artifact and the sections and returning (JSON) what of it the
        stage uses; of the other inputs the manifest is in the key.
    version: raised when the function makes, or proves, something else of the same inputs.
    """

    name: str
    kind: str
    function: str
    inputs: tuple[str, ...]
    reads: tuple[str, ...]
    part: str = ""
    keyless: tuple[str, ...] = ()
    outside: str = ""
    gates: tuple[str, ...] = ()
    counts: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    def key(self, recipe: Recipe, inputs: dict[str, Artifact], code: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the cache key: hash of what the stage reads, of the code it brings along, and of what it builds on.

        code: hashes of modules as the artifact that is there was made with, for those that are not installed here: a board
            needs no code of networks that were trained elsewhere.
        """
        brought = {name: found or code.get(name) for name, found in sources(recipe, self.reads).items()}
        content = {
            **({"code": brought} if brought else {}),
            "stage": [self.name, self.kind, self.function, self.part, *([self.version] if self.version > 1 else [])],
            "edgekd": package_version("edgekd"),
            "task": recipe.task,
            "seed": recipe.seed,
            "config": self._config(recipe),
            "files": _files(recipe, self.reads),
            "outside": self._imported(self.outside)(recipe.only(*self.reads)) if self.outside else None,
            "inputs": {
                name: self._what_counts(recipe, name, inputs[name]) for name in self.inputs if name not in self.gates
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def run(self, recipe: Recipe, inputs: dict[str, Artifact], out_dir: Path) -> StageResult:
        """Import and run the stage's function on the sections it declared."""
        with packages_of(f"stage {self.name}"):
            function: Callable[[StageJob], StageResult] = self._imported(self.function)
            return function(StageJob(recipe.only(*self.reads), inputs, out_dir, self.part))

    def _what_counts(self, recipe: Recipe, name: str, artifact: Artifact) -> object:
        if name not in self.counts:
            return artifact.sha256()
        return self._imported(self.counts[name])(artifact, recipe.only(*self.reads))

    def _config(self, recipe: Recipe) -> dict[str, object]:
        sections = {read.partition(":")[0] for read in self.reads} - {"trainer"}
        config = recipe.only(*self.reads).model_dump(mode="json", include=sections)
        for path in self.keyless:
            *parents, last = path.split(".")
            node: Any = config
            for parent in parents:
                node = (node or {}).get(parent)
            (node or {}).pop(last, None)
        # What lies at a path counts, not where it lies: `files`, and the fingerprint in the manifest of `data`.
        sections_with_paths = [config[name] for name in ("data", *_NETWORKS) if name in config]
        for section in [*sections_with_paths, *config.get("engines", ())]:
            section.pop("checkpoint", None)
            options = section["options"].items()
            section["options"] = {k: v for k, v in options if k not in PATH_OPTIONS or not isinstance(v, str)}
        return config

    @staticmethod
    def _imported(function: str) -> Callable[..., Any]:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)


_NETWORKS = ("teacher", "student")


def _files(recipe: Recipe, reads: tuple[str, ...]) -> dict[str, str]:
    """Return the hashes of the weight files that the sections name, by where in the recipe they are named."""
    found: dict[str, Path] = {}
    for name in (name for name in _NETWORKS if name in reads):
        network = getattr(recipe, name)
        named = {key: network.options.get(key) for key in PATH_OPTIONS}
        found |= {f"{name}.options.{key}": Path(value) for key, value in named.items() if isinstance(value, str)}
        if network.checkpoint:
            found[f"{name}.checkpoint"] = network.checkpoint
    return {key: sha256_of(path) if path.is_file() else str(path) for key, path in found.items()}

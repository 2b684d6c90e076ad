"""A stage: named inputs, one output artifact, a cache key. Stages know each other only by artifact names."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgekd.board.files import sha256_of
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.machine_facts import package_version
from edgekd.core.plugins import packages_of
from edgekd.core.recipe import LOCAL, Recipe
from edgekd.core.third_party import code_hashes

KeyContent = dict[str, Any]  # JSON; its top-level names are those of `key_changes`


@dataclass(frozen=True)
class StageJob:
    """The arguments of a stage function.

    recipe: the recipe with the sections that the stage declares; the others are None.
    inputs: the artifacts that the stage reads, by stage name.
    out_dir: an empty folder, or one with the resume state of an interrupted run.
    subject: distinguishes stages of one kind: an engine id, a quantized model, the artifact to score.
    """

    recipe: Recipe
    inputs: dict[str, Artifact]
    out_dir: Path
    subject: str = ""

    def input_of(self, kind: str) -> Artifact:
        """Return the first of its inputs that is of a kind."""
        return next(one for one in self.inputs.values() if one.kind == kind)


@dataclass(frozen=True)
class Stage:
    """One node of the pipeline.

    name: also the artifact's folder, e.g. `engine/openvino-int8`.
    kind: kind of the artifact.
    function: `package.module:function` that takes a StageJob; imported when the stage runs.
    inputs: names of the stages whose artifacts it reads. Their manifests are in the cache key.
    sections: the recipe sections that it may read. They are in the cache key, except `trainer`.
    subject: see StageJob.
    ignored_keys: recipe keys in those sections that do not change the artifact, e.g. `teacher.floor`.
    external_state: `package.module:function` that takes the sections and returns (JSON) state outside
        the run, e.g. a data set's files. Checkpoints that the sections name are covered without it.
    prerequisites: names of stages that only decide whether this one may run, e.g. the teacher's score. Their
        artifacts are among the job's inputs and not in the cache key.
    optional_inputs: those of `inputs` that are left out when their stage failed, e.g. an engine of the bench.
    partial_inputs: input -> `package.module:function` that takes its artifact and the sections and returns (JSON) the part
        that the stage uses. That part is in the cache key instead of the manifest.
    fails_alone: whether other stages continue when it fails: a failed engine does not end the run.
    version: raised when the function's output for the same inputs changes.
    """

    name: str
    kind: str
    function: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    subject: str = ""
    ignored_keys: tuple[str, ...] = ()
    external_state: str = ""
    prerequisites: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    partial_inputs: Mapping[str, str] = field(default_factory=dict)
    fails_alone: bool = False
    version: int = 1

    @property
    def group(self) -> str:
        """The stages of its kind, e.g. `engine` of `engine/openvino-int8` and `bench` of `bench@pi`."""
        return self.name.partition("/")[0].partition("@")[0]

    def key(self, recipe: Recipe, inputs: dict[str, Artifact], code: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the cache key, the hash of `key_content`."""
        return hash_of(self.key_content(recipe, inputs, code))

    def key_content(
        self,
        recipe: Recipe,
        inputs: dict[str, Artifact],
        code: Mapping[str, str] = MappingProxyType({}),
        before: Mapping[str, object] | None = None,
    ) -> KeyContent:
        """Return everything that the artifact's content depends on, by kind of cause (JSON).

        Args:
            recipe: the whole recipe.
            inputs: artifacts by name; of `optional_inputs` the existing ones.
            code: module -> hash in the present artifact, for third-party modules that are not installed here. A
                board needs no code of networks that were trained elsewhere.
            before: content of an earlier key, whose external state replaces the present one, for a board
                that cannot be asked now.
        """
        found = code_hashes(recipe, self.sections)
        return {
            "stage": [self.name, self.kind, self.subject, self.version],
            "edgekd": package_version("edgekd"),
            "task": recipe.task,
            "seed": recipe.seed,
            "config": self._config(recipe),
            "files": _weight_files(recipe, self.sections),
            "code": {name: value or code.get(name) for name, value in found.items()},
            "external_state": before.get("external_state") if before else self._external_state(recipe),
            "inputs": {
                name: self._used_part(recipe, name, inputs[name])
                for name in self.inputs
                if name in inputs or name not in self.optional_inputs
            },
        }

    def run(self, recipe: Recipe, inputs: dict[str, Artifact], out_dir: Path) -> StageResult:
        """Import and run the stage's function on the sections that it declares."""
        with packages_of(f"stage {self.name}"):
            function: Callable[[StageJob], StageResult] = _imported(self.function)
            return function(StageJob(recipe.only(*self.sections), inputs, out_dir, self.subject))

    def _external_state(self, recipe: Recipe) -> object:
        return _imported(self.external_state)(recipe.only(*self.sections)) if self.external_state else None

    def _used_part(self, recipe: Recipe, name: str, artifact: Artifact) -> object:
        if name not in self.partial_inputs:
            return artifact.sha256()
        return _imported(self.partial_inputs[name])(artifact, recipe.only(*self.sections))

    def _config(self, recipe: Recipe) -> dict[str, object]:
        names = {section.partition(":")[0] for section in self.sections} - {"trainer"}
        seen = recipe.only(*self.sections)
        config: dict[str, Any] = seen.model_dump(mode="json", include=names)
        for use in seen.plugin_uses():
            *above, own = use.at
            whole: Any = config
            reduce(lambda node, key: node[key], above, whole)[own] = use.options.in_keys(use.kind, use.name)
        for path in self.ignored_keys:
            *parents, last = path.split(".")
            node: Any = config
            for parent in parents:
                node = (node or {}).get(parent)
            (node or {}).pop(last, None)
        # The content of a file is in the key, not its path: `files`, and the fingerprint in the manifest of `data`.
        for name in names & set(_NETWORKS):
            config.get(name, {}).pop("checkpoint", None)
        for engine in config.get("engines") or ():
            engine.pop("student")  # its network is among the inputs
        return config


def bench_of(board: str) -> str:
    """Return the stage that measures the engines of a board."""
    return "bench" if board == LOCAL else f"bench@{board}"


def hash_of(content: KeyContent) -> str:
    """Return the cache key of a key's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _imported(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


_NETWORKS = ("teacher", "student")


def _weight_files(recipe: Recipe, sections: tuple[str, ...]) -> dict[str, str]:
    """Return the hashes of the weight files that the sections name, by their key in the recipe.

    Files behind the paths of a data format or target are not hashed here: `data` has the fingerprint of its files, and a
    target writes its caches.
    """
    found: dict[str, Path] = {}
    for use in recipe.only(*sections).plugin_uses():
        if use.kind not in ("formats", "targets"):
            found |= {f"{use.where}.{key}": path for key, path in use.options.paths(use.kind, use.name).items()}
    for name in (name for name in _NETWORKS if name in sections):
        network = getattr(recipe, name)
        if network.checkpoint:
            found[f"{name}.checkpoint"] = network.checkpoint
    return {key: sha256_of(path) if path.is_file() else str(path) for key, path in found.items()}

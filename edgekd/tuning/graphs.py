"""Engines of a run with other export settings or other options, built in the folder `tune` of the run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd import pipeline, planning
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.plugin_options import PluginOptions
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.workspace import Workspace
from edgekd.errors import EdgekdError

log = logging.getLogger(__name__)
FOLDER = "tune"


class Variants:
    """Builds engines of a run under other settings; engines of an earlier call are found by their cache key."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        self._recipe, self._run = recipe, run

    def build(
        self,
        engines: Sequence[Engine],
        export: Mapping[str, Any],
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Artifact | str]:
        """Return the engines, by id, that the run's student gives under these settings; the reason where one fails.

        Args:
            engines: engines of the run's recipe.
            export: keys of the section `export`.
            options: all options of engines by id, where they are not the recipe's.
        """
        ids = [engine.id for engine in engines]
        if export and not find_spec("torch"):
            return dict.fromkeys(ids, "its graph is exported with torch, which is not installed here")
        recipe = self._changed(engines, export, options or {})
        stages = planning.plan(recipe)
        wanted = [stage for stage in stages if stage.name in {f"engine/{name}" for name in ids}]
        failed: dict[str, str] = {}

        def note(failure: pipeline.StageFailure) -> None:
            failed[failure.name] = failure.reason

        folder = self._run / FOLDER / _name(export, options or {})
        try:
            with Workspace(folder).locked() as workspace:
                done = pipeline.run_stages(recipe, workspace, wanted, lambda _: None, note, stages, self._given(export))
        except EdgekdError as exc:  # the export: all engines share its graph
            return dict.fromkeys(ids, str(exc))
        return {
            name: done[f"engine/{name}"].artifact if f"engine/{name}" in done else failed[f"engine/{name}"]
            for name in ids
        }

    def _changed(
        self, engines: Sequence[Engine], export: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
    ) -> Recipe:
        """Return the recipe with these engines alone, under the settings."""
        changed = [
            engine.model_copy(update={"options": PluginOptions(options.get(engine.id, engine.options))})
            for engine in engines
        ]
        graph = self._recipe.export.model_copy(update=dict(export))
        return self._recipe.model_copy(update={"export": graph, "engines": tuple(changed)})

    def _given(self, export: Mapping[str, Any]) -> dict[str, Artifact]:
        """Return the run's artifacts that the variants are made of: the student, or where the graph is the run's, that."""
        further = planning.further_students(self._recipe)
        names = ["data", planning.deployed_student(self._recipe), *further]
        if not export:
            names += [
                "export",
                *(planning.of_student("export", student) for student in further),
                *(f"quantize/{path.name}" for path in sorted((self._run / "quantize").glob("*"))),
            ]
        known = {stage.name for stage in planning.plan(self._recipe)}
        return {name: open_artifact(self._run / name) for name in names if name in known}


def _name(export: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a folder's name for settings, readable and one for each: `input-uint8_nhwc`."""
    words = [f"{key}-{value}" for key, value in sorted(export.items())]
    if options:
        words.append(hashlib.sha256(json.dumps(options, sort_keys=True, default=dict).encode()).hexdigest()[:8])
    return "_".join(words) or "present"

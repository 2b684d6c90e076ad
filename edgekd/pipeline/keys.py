"""Cache keys of stages, and artifacts that stay valid while a board is away."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.core.stage import KeyContent, Stage, hash_of
from edgekd.core.workspace import Workspace


def key_content_of(recipe: Recipe, workspace: Workspace, stage: Stage, artifacts: Mapping[str, Artifact]) -> KeyContent:
    """Return the content of a stage's cache key; `artifacts` may hold more than its inputs."""
    inputs = {name: artifacts[name] for name in stage.inputs if name in artifacts}
    return stage.key_content(recipe, inputs, workspace.code_of(stage.name))


def kept_of(recipe: Recipe, workspace: Workspace, stage: Stage, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """Return the artifact in a stage's folder if its key is unchanged, apart from the state of a board that is away."""
    there = workspace.present(stage.name)
    before = there.manifest.get("key_content") if there is not None else None
    if there is None or there.failures or not before:
        return None
    inputs = {name: artifacts[name] for name in stage.inputs if name in artifacts}
    content = stage.key_content(recipe, inputs, workspace.code_of(stage.name), before)
    return there if hash_of(content) == there.manifest["key"] else None

"""The processes that train with the first one on several devices: they follow it through the stages and write nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.core.stage import Stage, hash_of
from edgekd.core.workspace import Workspace
from edgekd.errors import BoardError, GateError, TargetError
from edgekd.pipeline.keys import kept_of, key_content_of


def assist(recipe: Recipe, workspace: Workspace, stages: list[Stage], prerequisites: Collection[Stage] = ()) -> None:
    """Train together with the first process, which runs the same stages in the same folder, and wait for the inputs.

    A stage that fails alone there is left out here as well.
    A limit that is not met ends the training in all processes. The first one reports it, and this one returns without an error,
    because Lightning kills the first when another fails.

    Raises:
        WorkspaceError: the first process has ended without a stage that is needed.
    """
    follower = _Follower(recipe, workspace, {stage.name: stage for stage in (*prerequisites, *stages)})
    with suppress(GateError):
        for stage in stages:
            if stage.kind == "checkpoint":
                follower.obtain(stage)


class _Follower:
    """Obtains stages as `_Runner` finishes them: it trains with the first process, and waits for all else."""

    def __init__(self, recipe: Recipe, workspace: Workspace, known: Mapping[str, Stage]) -> None:
        self.recipe, self.workspace, self.known = recipe, workspace, known
        self._found: dict[str, Artifact | None] = {}

    def obtain(self, stage: Stage) -> Artifact | None:
        """Return the artifact of a stage, None where it failed in the first process, which goes on."""
        if stage.name not in self._found:
            self._found[stage.name] = self._obtained(stage)
        return self._found[stage.name]

    def _obtained(self, stage: Stage) -> Artifact | None:
        inputs = self._artifacts(stage.inputs)
        needed = set(stage.inputs) - set(stage.optional_inputs)
        if not needed <= set(inputs) or (stage.optional_inputs and not set(stage.optional_inputs) & set(inputs)):
            return None
        try:
            key = hash_of(key_content_of(self.recipe, self.workspace, stage, inputs))
        except (BoardError, TargetError):
            return kept_of(self.recipe, self.workspace, stage, inputs)
        if stage.kind == "checkpoint" and not self.workspace.has(stage.name, key):
            inputs |= self._artifacts(stage.prerequisites)
            stage.run(self.recipe, inputs, self.workspace.work_path(stage.name, key))
        return self.workspace.awaited(stage.name, key)

    def _artifacts(self, names: Sequence[str]) -> dict[str, Artifact]:
        found = {name: self.obtain(self.known[name]) for name in names}
        return {name: artifact for name, artifact in found.items() if artifact is not None}

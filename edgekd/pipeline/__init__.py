"""Runs the stages of a recipe and skips those whose cache key is already done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgekd.core import key_changes, user_code
from edgekd.core.artifact import Artifact, StageFacts, publish
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.stage import KeyContent, Stage, bench_of, hash_of
from edgekd.core.workspace import Workspace, disk_errors
from edgekd.data.splits import release_split
from edgekd.errors import BoardError, EdgekdError, TargetError, UserError, WorkspaceError, one_line
from edgekd.pipeline.assisting import assist
from edgekd.pipeline.keys import kept_of, key_content_of

__all__ = ["StageFailure", "StageRun", "assist", "default_out", "ran_before", "recall", "run_stages"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRun:
    """A finished stage: its artifact, whether this run skipped it, and the seconds that it took now."""

    stage: Stage
    artifact: Artifact
    skipped: bool
    seconds: float


@dataclass(frozen=True)
class StageFailure:
    """A stage, or one subject of it, that failed while the run went on.

    name: name of the stage; `<stage>/<subject>` for one subject.
    reason: one line.
    is_bug: whether the error is not an EdgekdError.
    cause: the input whose failure causes this one, "" if the stage itself failed.
    """

    name: str
    reason: str
    is_bug: bool = False
    cause: str = ""


def run_stages(
    recipe: Recipe,
    workspace: Workspace,
    stages: Sequence[Stage],
    on_stage: Callable[[StageRun], None] = lambda _: None,
    on_failure: Callable[[StageFailure], None] | None = None,
    prerequisites: Collection[Stage] = (),
    given: Mapping[str, Artifact] = MappingProxyType({}),
) -> dict[str, StageRun]:
    """Run the stages that are not already done and return all that are, by name; the workspace must be locked.

    Args:
        recipe: the whole recipe.
        workspace: the locked output folder.
        stages: from `plan`.
        on_stage: called with every stage that is done.
        on_failure: called with every stage that `fails_alone` and failed; None raises its error.
        prerequisites: stages that run, with their inputs, only when a stage that names them has to run. So a run that was
            trained elsewhere is compiled and measured on a board without the packages that train.
        given: artifacts of another folder by the name of their stage, which then does not run.

    Raises:
        EdgekdError: from a stage whose failure ends the run.
    """
    runner = _Runner(
        recipe, workspace, {stage.name: stage for stage in (*prerequisites, *stages)}, on_stage, on_failure
    )
    for name, artifact in given.items():
        runner.done[name] = StageRun(runner.known[name], artifact, skipped=True, seconds=0.0)
    for stage in stages:
        runner.finish(stage)
    return runner.done


class _Runner:
    """One pass over the stages, with the finished and the failed ones."""

    def __init__(
        self,
        recipe: Recipe,
        workspace: Workspace,
        known: Mapping[str, Stage],
        on_stage: Callable[[StageRun], None],
        on_failure: Callable[[StageFailure], None] | None,
    ) -> None:
        self.recipe, self.workspace, self.known = recipe, workspace, known
        self.on_stage, self.on_failure = on_stage, on_failure
        self.done: dict[str, StageRun] = {}
        self.failed: dict[str, str] = {}

    def finish(self, stage: Stage) -> bool:
        """Run a stage after its inputs, unless it is done; return whether there is an artifact."""
        if stage.name in self.done or stage.name in self.failed:
            return stage.name in self.done
        for name in stage.inputs:
            if not self.finish(self.known[name]) and name not in stage.optional_inputs:
                return self._fail(StageFailure(stage.name, f"{name} failed: {self.failed[name]}", cause=name))
        if stage.optional_inputs and not any(name in self.done for name in stage.optional_inputs):
            return self._fail(StageFailure(stage.name, "all of its inputs failed", cause=stage.optional_inputs[0]))
        try:
            content = key_content_of(self.recipe, self.workspace, stage, self._artifacts())
        except (BoardError, TargetError) as exc:
            return self._keep(stage, exc)
        artifact = self.workspace.finished(stage.name, hash_of(content))
        started, skipped = time.monotonic(), artifact is not None and not artifact.failures
        if artifact is None or not skipped:
            for name in stage.prerequisites:
                self.finish(self.known[name])
            started = time.monotonic()  # the prerequisites' time is their own
            made = self._made(stage, content)
            if made is None:
                return False
            artifact = made
            for subject, reason in artifact.failures.items():
                if self.on_failure is not None:
                    self.on_failure(StageFailure(f"{stage.name}/{subject}", reason))
        self.done[stage.name] = StageRun(stage, artifact, skipped, time.monotonic() - started)
        self.on_stage(self.done[stage.name])
        return True

    def _keep(self, stage: Stage, away: UserError) -> bool:
        """Finish a stage whose board cannot be asked, where it is done already; else it fails with the reason."""
        artifact = kept_of(self.recipe, self.workspace, stage, self._artifacts())
        if artifact is None:
            if self.on_failure is None or not stage.fails_alone:
                raise away
            return self._fail(StageFailure(stage.name, str(away)))
        log.warning("%s: kept as it was measured: %s", stage.name, away)
        self.done[stage.name] = StageRun(stage, artifact, True, 0.0)
        self.on_stage(self.done[stage.name])
        return True

    def _made(self, stage: Stage, content: KeyContent) -> Artifact | None:
        why = _why_again(self.workspace, stage, content)
        log.info("%s: running%s", stage.name, f" again: {why}" if why else "")
        if stage.kind in ("engine", "latency"):  # a board's memory is its GPU's as well
            release_split(self.recipe.data.train)
        inputs = {n: self.done[n].artifact for n in (*stage.inputs, *stage.prerequisites) if n in self.done}
        try:
            with disk_errors(self.workspace.root):
                return _run(self.recipe, self.workspace, stage, content, inputs)
        except EdgekdError as exc:
            is_our_disk = isinstance(exc, WorkspaceError) and not isinstance(exc, BoardError)
            if is_our_disk or self.on_failure is None or not stage.fails_alone:
                raise
            self._fail(StageFailure(stage.name, str(exc)))
        except Exception as exc:
            if self.on_failure is None or not stage.fails_alone:
                raise
            if (theirs := user_code.error_of(exc)) is not None:
                log.debug("%s", stage.name, exc_info=exc)
                self._fail(StageFailure(stage.name, str(theirs)))
                return None
            log.exception("%s: an error that edgekd did not expect", stage.name)
            self._fail(StageFailure(stage.name, f"{type(exc).__name__}: {one_line(exc)}", is_bug=True))
        return None

    def _fail(self, failure: StageFailure) -> bool:
        self.failed[failure.name] = failure.reason
        self.workspace.note_failure(failure.name)
        if not failure.cause:
            log.error("%s: failed: %s", failure.name, failure.reason)
        if self.on_failure is not None:
            self.on_failure(failure)
        return False

    def _artifacts(self) -> dict[str, Artifact]:
        return {name: one.artifact for name, one in self.done.items()}


def recall(
    recipe: Recipe,
    stages: Sequence[Stage],
    ran: Sequence[StageRun],
    workspace: Workspace,
    is_held: bool,
) -> list[StageRun]:
    """Return `ran` and, of the other stages, those that an earlier run finished under the same settings.

    Args:
        recipe: the whole recipe.
        stages: all of its stages, in order.
        ran: the stages that this run finished.
        workspace: the output folder.
        is_held: whether this process holds the folder, and may move artifacts from `.previous` back.
    """
    find = workspace.finished if is_held else workspace.look
    known = {stage_run.stage.name: stage_run for stage_run in ran}
    for stage in stages:
        needed = set(stage.inputs) - set(stage.optional_inputs)
        if stage.name not in known and needed <= set(known):
            artifacts = {name: one.artifact for name, one in known.items()}
            try:
                artifact = find(stage.name, hash_of(key_content_of(recipe, workspace, stage, artifacts)))
            except (BoardError, TargetError):
                artifact = kept_of(recipe, workspace, stage, artifacts)
            if artifact is not None:
                known[stage.name] = StageRun(stage, artifact, skipped=True, seconds=0.0)
    return list(known.values())


def ran_before(workspace: Workspace, engine: Engine) -> bool:
    """Return whether an engine was measured on its board, or its board measured none yet; True for one that is not built."""
    bench = workspace.present(bench_of(engine.board))
    name = f"engine/{engine.id}"
    return bench is None or name in bench.manifest["inputs"] or workspace.present(name) is None


def default_out(recipe: Recipe) -> Path:
    """Return `runs/<recipe name>` under the current folder."""
    return Path("runs") / recipe.name


def _why_again(workspace: Workspace, stage: Stage, content: KeyContent) -> str:
    """Return why the artifact in the stage's folder cannot be used, "" without an artifact."""
    there = workspace.present(stage.name)
    if there is None:
        return ""
    if there.failures:
        return f"{', '.join(there.failures)} failed before"
    return key_changes.reasons(there.manifest.get("key_content"), content)


def _run(
    recipe: Recipe, workspace: Workspace, stage: Stage, content: KeyContent, inputs: dict[str, Artifact]
) -> Artifact:
    work = workspace.work_dir(stage.name, hash_of(content))
    started = time.monotonic()
    result = stage.run(recipe, inputs, work)
    facts: StageFacts = {
        "kind": stage.kind,
        "stage": stage.name,
        "key": hash_of(content),
        "key_content": content,
        "recipe_sha256": recipe.sha256(),
        "code": content["code"],
        "inputs": {name: artifact.sha256() for name, artifact in inputs.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    workspace.set_aside(stage.name)
    return publish(work, workspace.artifact_dir(stage.name), facts, result)

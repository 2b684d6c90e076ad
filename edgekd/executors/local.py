"""This process as an executor: jobs are function calls, sessions are opened here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from edgekd.board.job import Job, Json, Progress
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts
from edgekd.core import machine_facts, plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.errors import ArtifactError
from edgekd.executors.base import Identity, absolute, no_progress
from edgekd.worker_tasks import TASKS

# Artifact kind -> function that opens it; by name, so that engines open without torch.
_OPENERS = {
    "checkpoint": "edgekd.models.artifact:open_checkpoint",
    "onnx": "edgekd.executors.local:open_onnx",
    "engine": "edgekd.executors.local:open_engine",
}


class Local:
    """The executor of board `local`."""

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job in this process, with this process's logging."""
        module = plugins.load("targets", job.target).__name__ if job.target else ""
        placed = replace(job, module=module, files=absolute(files), out_dir=str(out_dir.absolute()))
        return TASKS[job.task](placed, progress)

    def open_session(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Open an artifact in this process."""
        if artifact.kind not in _OPENERS:
            expected = ", ".join(_OPENERS)
            raise ArtifactError(f"{artifact.path}: expected an artifact of kind {expected}, got {artifact.kind}")
        module, _, name = _OPENERS[artifact.kind].partition(":")
        opened: AbstractContextManager[Session] = getattr(importlib.import_module(module), name)(artifact)
        return opened

    def identity(self) -> Identity:
        """Return this machine, and what this process may use of it."""
        return Identity(**machine_facts.identity())

    def facts(self) -> Facts:
        """Return hardware, system, clocks and temperatures of this machine."""
        return dict(machine_facts.facts())


def open_engine(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return a session of an engine's own target; ArtifactError when the manifest does not say which."""
    details = artifact.details
    for name, kind in (("target", str), ("options", dict), ("engine", str)):
        if not isinstance(details.get(name), kind):
            raise ArtifactError(f"{artifact.path}: damaged manifest (details.{name}); build the engine again")
    options = plugin_options("targets", details["target"], details["options"], "options")
    return plugins.target(details["target"]).session(artifact.file(details["engine"]), artifact.spec, options)


def open_onnx(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return a session of the reference runtime on an exported graph."""
    return open_reference(artifact.file("model.onnx"), artifact.spec)


def open_reference(model: Path, spec: ModelSpec) -> AbstractContextManager[Session]:
    """Return a session of the reference runtime on an ONNX file, without optimisation of the graph: node by node as it stands.

    Torch is compared with it at export, and every engine with it when it is compiled.
    """
    target = plugins.target(REFERENCE_TARGET)
    return target.session(model, spec, target.options(graph_optimization="disabled"))


REFERENCE_TARGET = "onnxruntime"  # runs any graph that edgekd exports

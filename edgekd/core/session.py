"""Opens whatever an artifact holds for inference: a torch checkpoint, an ONNX file or an engine.

All three answer `infer(dict) -> dict` under their own `spec`, so that scoring, timing and prediction do not care.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from edgekd.board.session import Session
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine
from edgekd.errors import ArtifactError
from edgekd.targets.base import SessionBase

# Artifact kind -> function that opens it; a string, so that engines open without torch.
_OPENERS = {
    "checkpoint": "edgekd.models.artifact:open_checkpoint",
    "onnx": "edgekd.core.session:_open_onnx",
    "engine": "edgekd.core.session:_open_engine",
}


def open_session(artifact: Artifact) -> AbstractContextManager[Session]:
    """Return the context manager of a session on an artifact.

    Raises:
        ArtifactError: the artifact holds no network.
        TargetError: its runtime is not installed, or refuses the engine.
    """
    if artifact.kind not in _OPENERS:
        raise ArtifactError(f"{artifact.path}: expected an artifact of kind {', '.join(_OPENERS)}, got {artifact.kind}")
    module, _, name = _OPENERS[artifact.kind].partition(":")
    return getattr(importlib.import_module(module), name)(artifact)


def why_not_here(engine: Engine) -> str:
    """Return why this machine cannot run an engine of a recipe, "" when it can."""
    return plugins.target(engine.target).why_not_here(engine.target_options)


def _open_engine(artifact: Artifact) -> SessionBase:
    details = artifact.details
    for name, kind in (("target", str), ("options", dict), ("engine", str)):
        if not isinstance(details.get(name), kind):
            raise ArtifactError(f"{artifact.path}: damaged manifest (details.{name}); build the engine again")
    target = plugins.target(details["target"])
    options = plugin_options("targets", details["target"], details["options"], "options")
    return target.session(artifact.file(details["engine"]), artifact.spec, options)


def _open_onnx(artifact: Artifact) -> SessionBase:
    target = plugins.target("onnxruntime")
    return target.session(artifact.file("model.onnx"), artifact.spec, target.options())

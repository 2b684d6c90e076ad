"""Files that let other software run an engine: a plugin per stack.

    write("triton", engine_of(artifact), folder)    the files of one stack
    write_all(artifact, folder)                     those of every stack that takes the engine, in folders of their names

A plugin is a module of this package with `TITLE`, `TARGETS` (engines of these targets fit), `why_not(engine)`, which returns on
one line why an engine does not fit, "" when it does, and `write(engine, folder)`, which writes the files and returns the steps
that remain for the user, in that folder. No file names the folder: a bundle moves it.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.errors import UserError
from edgekd.stacks.base import Engine, engine_of

__all__ = ["Engine", "engine_of", "refusals", "stacks_of", "write", "write_all"]


def stacks_of(target: str) -> list[str]:
    """Return the names of the stacks that take engines of a target."""
    return [name for name in plugins.names("stacks") if target in plugins.load("stacks", name).TARGETS]


def refusals(engine: Engine) -> dict[str, str]:
    """Return for every stack of the engine's target why it does not take this engine, "" where it does."""
    return {name: _why_not(plugins.load("stacks", name), engine) for name in stacks_of(engine.target)}


def write(name: str, engine: Engine, folder: Path) -> list[str]:
    """Write the files of a stack into a folder; return the steps that remain for the user, in that folder.

    Raises:
        UserError: no such stack, or it does not take the engine.
    """
    stack = plugins.load("stacks", name)
    if reason := _why_not(stack, engine):
        raise UserError(f"stack {name}: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    steps: list[str] = stack.write(engine, folder)
    return steps


def write_all(artifact: Artifact, folder: Path) -> dict[str, str]:
    """Write the files of every stack that takes an engine, each into a folder of its name.

    Returns:
        Stack -> why it does not take the engine, "" when its files are written; only stacks of the engine's target.

    Raises:
        ArtifactError: not an engine.
    """
    engine = engine_of(artifact)
    reasons = refusals(engine)
    for name, reason in reasons.items():
        if not reason:
            write(name, engine, folder / name)
    return reasons


def _why_not(stack: ModuleType, engine: Engine) -> str:
    if engine.target not in stack.TARGETS:
        return (
            f"takes engines of {', '.join(stack.TARGETS)}, got one of {engine.target}; build an engine for one of them"
        )
    reason: str = stack.why_not(engine)
    return reason

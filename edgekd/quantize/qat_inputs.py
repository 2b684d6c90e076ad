"""The parts of their inputs that the stages of section `qat` depend on; their cache keys hold these instead of whole artifacts.

A manifest has the time of its stage and all of that stage's settings, and a training is too long for a change of these.
"""

from __future__ import annotations

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe


def graph_part(export: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part of an exported network that decides the placement and the first scales: its files and its contract."""
    files = {file["name"]: file["sha256"] for file in export.manifest["files"]}
    return {"files": files, "spec": export.manifest["model_spec"]}


def budget_part(budget: Artifact, recipe: Recipe) -> dict[str, object]:
    """Return the part of stage `budget` that decides whether a student trains; where it does not, the reason that it keeps."""
    is_met = budget.details["is_met"]
    return {"is_met": is_met, "text": budget.details["text"] if is_met else ""}

"""A file in a run's folder that names the engines that failed alone. The study takes the scores of the other engines.

The file is valid for one recipe and one version of edgekd. `edgekd study --retry` deletes it, and the run builds the engines again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import edgekd
from edgekd import planning
from edgekd.board.files import write_atomic
from edgekd.study.plan import StudyRun, recipe_text

FILE = "failed_engines.json"
_FAILURE = re.compile(r"(\S+) failed: (.*)")  # printed by `edgekd run` for a stage that failed alone


def known(run: StudyRun) -> dict[str, str]:
    """Return engine -> reason of the engines that failed in a run of this recipe by this edgekd."""
    file = run.folder / FILE
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["engines"] if content["of"] == _settings(run) else {}


def remember(run: StudyRun, errors: Sequence[str]) -> bool:
    """Write the engines that failed into the run's folder; return whether there are any.

    Args:
        run: its process has ended.
        errors: error lines of that process.
    """
    reasons = {found[1]: found[2] for line in errors if (found := _FAILURE.fullmatch(line))}
    stages = planning.plan(run.recipe)
    engines = {}
    for name in run.engines:
        needed = [stage.name for stage in planning.select(stages, f"evaluate/{name}")]
        if cause := next((one for one in needed if one in reasons), ""):
            engines[name] = f"{cause} failed: {reasons[cause]}"
    if engines:
        write_atomic(run.folder / FILE, json.dumps({"of": _settings(run), "engines": engines}, indent=1))
    return bool(engines)


def forget(runs: Iterable[StudyRun]) -> None:
    """Delete the files of these runs: their failed engines are built again."""
    for run in runs:
        (run.folder / FILE).unlink(missing_ok=True)


def _settings(run: StudyRun) -> dict[str, Any]:
    return {"edgekd": edgekd.__version__, "recipe_sha256": hashlib.sha256(recipe_text(run).encode()).hexdigest()}

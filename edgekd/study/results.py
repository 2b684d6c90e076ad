"""What a study found: per arm mean and standard deviation, and the paired difference to the baseline."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekd.board.sysinfo import environment
from edgekd.core.artifact import Artifact, package_versions, write_atomic
from edgekd.core.recipe import Recipe
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.difference import by_seed, compare
from edgekd.study.plan import StudyRun, arms_of
from edgekd.study.table import markdown

SCHEMA = "edgekd.study/1"


def summarize(
    recipe: Recipe, teacher: Mapping[str, Artifact], runs: Sequence[tuple[StudyRun, Mapping[str, Artifact] | str]]
) -> dict[str, Any]:
    """Return the content of `study.json`.

    Args:
        recipe: of the study.
        teacher: artifacts of the teacher by stage name.
        runs: every run with its artifacts, or with why it has none.
    """
    assert recipe.student.train is not None, "a recipe with arms trains its student"
    arms, baseline = arms_of(recipe), recipe.study.baseline
    entries = {arm: [_entry(run, found) for run, found in runs if run.arm == arm] for arm in arms}
    return {
        "schema": SCHEMA,
        "recipe_name": recipe.name,
        "recipe_sha256": recipe.sha256(),
        "recipe": recipe.model_dump(mode="json"),
        "environment": {**environment(), "packages": package_versions()},
        "baseline": baseline,
        "seeds": list(recipe.study.seeds),
        "steps": recipe.student.train.steps,
        "teacher": {
            "params": teacher["teacher"].details["params"],
            "metrics": teacher["evaluate/teacher"].details["metrics"],
        },
        "arms": [
            {
                "name": arm,
                "methods": {name: method.model_dump(mode="json") for name, method in methods.items()},
                "runs": entries[arm],
                "metrics": _summary(entries[arm], entries[baseline], is_baseline=arm == baseline),
                "seconds_per_step": _mean(entries[arm], "seconds_per_step"),
                "peak_memory_bytes": _mean(entries[arm], "peak_memory_bytes"),
            }
            for arm, methods in arms.items()
        ],
    }


def _entry(run: StudyRun, found: Mapping[str, Artifact] | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"seed": run.seed, "status": "missing", "reason": found}
    student, score = found[run.stage].details, found[run.score].details
    training = student["training"]
    return {
        "seed": run.seed,
        "status": "measured",
        "reason": "",
        "metrics": score["metrics"],
        "params": student["params"],
        "steps": training["steps"],
        "seconds_per_step": training["seconds_per_step"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "curve": training["curve"],
        "validation": training["validation"],
    }


def _summary(arm: list[dict[str, Any]], baseline: list[dict[str, Any]], is_baseline: bool) -> dict[str, Any]:
    summary = {}
    for metric, (_, _, higher_is_better) in DEFINITIONS.items():
        of_arm, of_baseline = by_seed(arm, metric), by_seed(baseline, metric)
        if not of_arm:
            continue
        values = list(of_arm.values())
        difference = None if is_baseline else compare(of_arm, of_baseline, higher_is_better)
        summary[metric] = {
            "mean": statistics.mean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "n": len(values),
            "difference": asdict(difference) if difference else None,
        }
    return summary


def _mean(entries: list[dict[str, Any]], name: str) -> float | None:
    values = [entry[name] for entry in entries if entry["status"] == "measured"]
    return statistics.mean(values) if values else None


def write(study: dict[str, Any], folder: Path) -> None:
    """Write `study.json`, `study.md` (the table) and `study.png` (the picture) into a folder."""
    from edgekd.study.figure import draw

    write_atomic(folder / "study.json", json.dumps(study, indent=1, allow_nan=False))
    write_atomic(folder / "study.md", markdown(study))
    draw(study, folder / "study.png")

"""What a study found: per arm mean and standard deviation, and the paired difference to the baseline."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgekd.board.files import replacing, write_atomic
from edgekd.board.sysinfo import environment
from edgekd.core.artifact import Artifact, package_versions
from edgekd.core.recipe import Recipe
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.difference import by_seed, compare
from edgekd.study.plan import StudyRun, arms_of
from edgekd.study.table import csv_lines, markdown

SCHEMA = "edgekd.study/1"
WRITE_EVERY_S = 60.0  # drawing takes a second


@dataclass(frozen=True)
class NoResult:
    """Why a run has no result (yet)."""

    status: Literal["missing", "failed"]
    reason: str


Result = Mapping[str, Artifact] | NoResult  # of a run: its artifacts by stage name, or none


class Findings:
    """What the runs of a study have given so far, by threads; written now and then, so that there is something to read.

    Args:
        recipe: of the study.
        teacher: artifacts of the teacher by stage name.
        runs: all of them, none ended yet.
        folder: for the files that `write` writes.
    """

    def __init__(self, recipe: Recipe, teacher: Mapping[str, Artifact], runs: Sequence[StudyRun], folder: Path) -> None:
        self._recipe, self._teacher, self._runs, self._folder = recipe, teacher, runs, folder
        self._results: dict[Path, Result] = {}
        self._lock, self._written = threading.Lock(), time.monotonic()

    def add(self, run: StudyRun, result: Result) -> int:
        """Remember what a run has given; return how many have ended."""
        with self._lock:
            self._results[run.folder] = result
            if time.monotonic() > self._written + WRITE_EVERY_S:
                self._write()
            return len(self._results)

    def missing(self) -> list[StudyRun]:
        """Return the runs that ended without a result and did not fail: another process had them."""
        with self._lock:
            found = [(run, self._results.get(run.folder)) for run in self._runs]
        return [run for run, result in found if isinstance(result, NoResult) and result.status == "missing"]

    def write(self) -> dict[str, Any]:
        """Write the files and return the content of `study.json`."""
        with self._lock:
            return self._write()

    def _write(self) -> dict[str, Any]:
        none = NoResult("missing", "not run yet")
        content = summarize(self._recipe, self._teacher, [(r, self._results.get(r.folder, none)) for r in self._runs])
        write(content, self._folder)
        self._written = time.monotonic()
        return content


def summarize(
    recipe: Recipe, teacher: Mapping[str, Artifact], runs: Sequence[tuple[StudyRun, Result]]
) -> dict[str, Any]:
    """Return the content of `study.json`.

    Args:
        recipe: of the study.
        teacher: artifacts of the teacher by stage name.
        runs: every run with its result.
    """
    assert recipe.student.train is not None  # `arms_of` says so
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


def _entry(run: StudyRun, found: Result) -> dict[str, Any]:
    if isinstance(found, NoResult):
        return {"seed": run.seed, "status": found.status, "reason": found.reason}
    student, score = found[run.stage].details, found[run.score].details
    training = student["training"]
    return {
        "seed": run.seed,
        "status": "measured",
        "reason": "",
        "metrics": score["metrics"],
        "params": student["params"],
        "steps": training["steps"],
        "device": training["device"],
        "precision": training["precision"],
        "world_size": training.get("world_size"),
        "teacher_answers": training.get("teacher_answers"),
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
    """Write `study.json`, `study.csv` (a line per run), `study.md` (the table) and `study.png` (the picture) into a folder."""
    from edgekd.study.figure import draw

    write_atomic(folder / "study.json", json.dumps(study, indent=1, allow_nan=False))
    write_atomic(folder / "study.csv", csv_lines(study))
    write_atomic(folder / "study.md", markdown(study))
    with replacing(folder / "study.png") as temporary:
        draw(study, temporary)

"""Results of a study: mean and standard deviation per arm, and the paired difference to the baseline."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.board.files import replacing, write_atomic
from edgekd.core.artifact import Artifact
from edgekd.core.machine_facts import environment, package_versions
from edgekd.core.recipe import Recipe
from edgekd.evaluate.definitions import definitions
from edgekd.report.stored import read_file
from edgekd.report.training import TrainedMethod
from edgekd.study.difference import by_seed, compare
from edgekd.study.model import SCHEMA, Arm, ArmRun, Study, StudyTeacher, Summary
from edgekd.study.plan import StudyRun, arms_of
from edgekd.study.table import csv_lines, markdown

STUDY = "study.json"
WRITE_EVERY_S = 60.0  # seconds between two writes; drawing takes a second


@dataclass(frozen=True)
class NoResult:
    """Reason why a run has no result (yet)."""

    status: Literal["missing", "failed"]
    reason: str


Result = Mapping[str, Artifact] | NoResult  # of a run: its artifacts by stage name, or none


class Findings:
    """Results of the runs so far, added by several threads. The files are written again at most every WRITE_EVERY_S.

    Args:
        recipe: the study's recipe.
        teacher: artifacts of the teacher by stage name.
        runs: all runs of the study.
        folder: the folder of the written files.
    """

    def __init__(self, recipe: Recipe, teacher: Mapping[str, Artifact], runs: Sequence[StudyRun], folder: Path) -> None:
        self._recipe, self._teacher, self._runs, self._folder = recipe, teacher, runs, folder
        self._results: dict[Path, Result] = {}
        self._lock, self._written = threading.Lock(), time.monotonic()

    def add(self, run: StudyRun, result: Result) -> int:
        """Store the result of a run; return the number of runs that have ended."""
        with self._lock:
            self._results[run.folder] = result
            if time.monotonic() > self._written + WRITE_EVERY_S:
                self._write()
            return len(self._results)

    def missing(self) -> list[StudyRun]:
        """Return the runs that another process holds: without a result and not failed."""
        with self._lock:
            found = [(run, self._results.get(run.folder)) for run in self._runs]
        return [run for run, result in found if isinstance(result, NoResult) and result.status == "missing"]

    def write(self) -> Study:
        """Write the files and return the content of `study.json`."""
        with self._lock:
            return self._write()

    def _write(self) -> Study:
        none = NoResult("missing", "not run yet")
        content = summarize(self._recipe, self._teacher, [(r, self._results.get(r.folder, none)) for r in self._runs])
        write(content, self._folder)
        self._written = time.monotonic()
        return content


def summarize(recipe: Recipe, teacher: Mapping[str, Artifact], runs: Sequence[tuple[StudyRun, Result]]) -> Study:
    """Return the content of `study.json`.

    Args:
        recipe: the study's recipe.
        teacher: artifacts of the teacher by stage name.
        runs: every run with its result.
    """
    assert recipe.student.train is not None  # `arms_of` refuses a student that is not trained
    arms, baseline = arms_of(recipe), recipe.study.baseline
    entries = {arm: [_arm_run(run, result) for run, result in runs if run.arm == arm] for arm in arms}
    return Study(
        schema=SCHEMA,
        recipe_name=recipe.name,
        recipe_sha256=recipe.sha256(),
        recipe=recipe.model_dump(mode="json"),
        environment={**environment(), "packages": package_versions()},
        baseline=baseline,
        seeds=list(recipe.study.seeds),
        images_sha256=_images(teacher["evaluate/teacher"]),
        steps=recipe.student.train.steps,
        teacher=StudyTeacher(
            params=teacher["teacher"].details["params"],
            metrics=teacher["evaluate/teacher"].details["metrics"],
        ),
        arms=[
            Arm(
                name=arm,
                methods={
                    name: TrainedMethod.model_validate(one.model_dump(mode="json")) for name, one in methods.items()
                },
                runs=entries[arm],
                metrics=_summary(entries[arm], entries[baseline], arm == baseline, recipe.evaluate.max_detections),
                seconds_per_step=_mean([run.seconds_per_step for run in entries[arm]]),
                peak_memory_bytes=_mean([run.peak_memory_bytes for run in entries[arm]]),
            )
            for arm, methods in arms.items()
        ],
    )


def _images(score: Artifact) -> str:
    """Return the hash of the scored images; the teacher and all arms are scored on the same ones."""
    return str(score.details.get("images_sha256", ""))


def _arm_run(run: StudyRun, result: Result) -> ArmRun:
    if isinstance(result, NoResult):
        return ArmRun(seed=run.seed, status=result.status, reason=result.reason)
    student, score = result[run.stage].details, result[run.score].details
    training = student["training"]
    return ArmRun(
        seed=run.seed,
        status="measured",
        reason="",
        metrics=score["metrics"],
        params=student["params"],
        steps=training["steps"],
        device=training["device"],
        precision=training["precision"],
        world_size=training.get("world_size"),
        teacher_answers=training.get("teacher_answers"),
        seconds_per_step=training["seconds_per_step"],
        peak_memory_bytes=training["peak_memory_bytes"],
        curve=training["curve"],
        validation=training["validation"],
    )


def _summary(arm: list[ArmRun], baseline: list[ArmRun], is_baseline: bool, max_detections: int) -> dict[str, Summary]:
    summary = {}
    for metric, (_, _, higher_is_better) in definitions(max_detections).items():
        of_arm, of_baseline = by_seed(arm, metric), by_seed(baseline, metric)
        if not of_arm:
            continue
        values = list(of_arm.values())
        summary[metric] = Summary(
            mean=statistics.mean(values),
            sd=statistics.stdev(values) if len(values) > 1 else None,
            n=len(values),
            difference=None if is_baseline else compare(of_arm, of_baseline, higher_is_better),
        )
    return summary


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return statistics.mean(measured) if measured else None


def write(study: Study, folder: Path) -> None:
    """Write `study.json`, `study.csv` (a line per run), `study.md` (the table) and `study.png` (the figure) into a folder."""
    from edgekd.study.figure import draw

    write_atomic(folder / STUDY, study.to_json())
    write_atomic(folder / "study.csv", csv_lines(study))
    write_atomic(folder / "study.md", markdown(study))
    with replacing(folder / "study.png") as temporary:
        draw(study, temporary)


def read_study(folder: Path) -> Study:
    """Return the study in the folder of an `edgekd study`.

    Raises:
        UserError: no readable `study.json`, or one of a newer edgekd.
    """
    return read_file(folder / STUDY, Study, SCHEMA, "study")

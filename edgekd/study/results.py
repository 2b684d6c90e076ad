"""Results of a study: mean and standard deviation per arm, and the paired difference to the baseline."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from edgekd.board.files import replacing, write_atomic
from edgekd.core.artifact import Artifact
from edgekd.core.machine_facts import environment, package_versions
from edgekd.core.recipe import Method, Recipe
from edgekd.evaluate.definitions import definitions
from edgekd.report.stored import read_file
from edgekd.report.training import Trained, TrainedMethod
from edgekd.study.difference import by_seed, compare
from edgekd.study.model import FLOAT, SCHEMA, Arm, ArmRun, Study, StudyTeacher, Summary
from edgekd.study.plan import StudyRun, arms_of
from edgekd.study.quantized import engines_of, methods_of, quantized_arms
from edgekd.study.table import csv_lines, markdown

STUDY = "study.json"
WRITE_EVERY_S = 60.0  # seconds between two writes; drawing takes a second


@dataclass(frozen=True)
class NoResult:
    """Reason why a run has no result (yet)."""

    status: Literal["missing", "failed"]
    reason: str


# Of a run: its artifacts by stage name, or none. An engine that failed alone has the reason in place of its score.
Result = Mapping[str, Artifact | NoResult] | NoResult


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

    def add(self, run: StudyRun, result: Result) -> None:
        """Store the result of a run."""
        with self._lock:
            self._results[run.folder] = result
            if time.monotonic() > self._written + WRITE_EVERY_S:
                self._write()

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
    arms = _quantized(recipe, runs) if recipe.study.quantized else _distilled(recipe, runs)
    budget = recipe.qat.train if recipe.study.quantized and recipe.qat else recipe.student.train
    assert budget is not None  # `arms_of` refuses a student that is not trained
    most, baseline = recipe.evaluate.max_detections, arms[0].baseline
    return Study(
        schema=SCHEMA,
        recipe_name=recipe.name,
        recipe_sha256=recipe.sha256(),
        recipe=recipe.model_dump(mode="json"),
        environment={**environment(), "packages": package_versions()},
        baseline=baseline,
        seeds=list(recipe.study.seeds),
        images_sha256=_images(teacher["evaluate/teacher"]),
        steps=budget.steps,
        teacher=StudyTeacher(
            params=teacher["teacher"].details["params"],
            metrics=teacher["evaluate/teacher"].details["metrics"],
        ),
        arms=[_arm(one, arms, baseline, most) for one in arms],
    )


@dataclass(frozen=True)
class _Entry:
    """One row of the table: the scores of one arm.

    engine: the engine that is scored, "" for the network.
    baseline: name of the row that it is compared with.
    """

    name: str
    engine: str
    baseline: str
    methods: Mapping[str, Method]
    runs: list[ArmRun]


def _distilled(recipe: Recipe, runs: Sequence[tuple[StudyRun, Result]]) -> list[_Entry]:
    return [
        _Entry(arm, "", recipe.study.baseline, methods, [_arm_run(*one) for one in runs if one[0].arm == arm])
        for arm, methods in arms_of(recipe).items()
    ]


def _quantized(recipe: Recipe, runs: Sequence[tuple[StudyRun, Result]]) -> list[_Entry]:
    """Return a row for every engine of every arm, then the float networks.

    An engine is compared with the same engine of the baseline, a float network with the baseline's. A network of QAT is made for int8
    and has no such row; with it as baseline, float networks are compared with the first.
    """
    assert recipe.study.quantized is not None
    arms, engines, baseline = quantized_arms(recipe), engines_of(recipe), recipe.study.quantized.baseline
    of = {arm: [one for one in runs if one[0].arm == arm] for arm in arms}

    def name(arm: str, engine: str) -> str:
        return arm if len(engines) == 1 else f"{arm} {engine}"

    with_float = [arm for arm, settings in arms.items() if settings.student != "qat"]
    float_baseline = baseline if baseline in with_float else next(iter(with_float), "")
    entries = [
        _Entry(
            name(arm, engine.id), engine.id, name(baseline, engine.id), methods_of(recipe, settings),
            [_arm_run(run, result, engine.id) for run, result in of[arm]],
        )
        for engine in engines
        for arm, settings in arms.items()
    ]  # fmt: skip
    floats = [
        _Entry(
            f"{arm}{FLOAT}",
            "",
            f"{float_baseline}{FLOAT}",
            methods_of(recipe, arms[arm]),
            [_arm_run(*one) for one in of[arm]],
        )
        for arm in with_float
    ]
    return entries + floats


def _arm(entry: _Entry, entries: Sequence[_Entry], baseline: str, max_detections: int) -> Arm:
    compared = next(one.runs for one in entries if one.name == entry.baseline)
    methods = {name: TrainedMethod.model_validate(one.model_dump(mode="json")) for name, one in entry.methods.items()}
    return Arm(
        name=entry.name,
        methods=methods,
        runs=entry.runs,
        metrics=_summary(entry.runs, compared, entry.name == entry.baseline, max_detections),
        seconds_per_step=_mean([run.seconds_per_step for run in entry.runs]),
        peak_memory_bytes=_mean([run.peak_memory_bytes for run in entry.runs]),
        **({"engine": entry.engine} if entry.engine else {}),
        **({"baseline": entry.baseline} if entry.baseline != baseline else {}),
    )


def _images(score: Artifact) -> str:
    """Return the hash of the scored images; the teacher and all arms are scored on the same ones."""
    return str(score.details.get("images_sha256", ""))


def _arm_run(run: StudyRun, result: Result, engine: str = "") -> ArmRun:
    if isinstance(result, NoResult):
        return ArmRun(seed=run.seed, status=result.status, reason=result.reason)
    scored = result[f"evaluate/{engine}" if engine else run.score]
    if isinstance(scored, NoResult):
        return ArmRun(seed=run.seed, status=scored.status, reason=scored.reason)
    student, score = cast(Artifact, result[run.stage]).details, scored.details
    facts = {key: value for key, value in student["training"].items() if key in Trained.model_fields}
    return ArmRun(
        seed=run.seed, status="measured", reason="", metrics=score["metrics"], params=student["params"], **facts
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

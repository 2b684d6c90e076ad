"""The report page: one self-contained HTML file, readable without network, server and scripts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.board.detection import MIN_SCORE
from edgekd.core.recipe import LOCAL
from edgekd.core.task_metrics import TASKS, Task
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.report import charts
from edgekd.report.charts import Curve, Runs
from edgekd.report.confusion import Confusion, confusion
from edgekd.report.data_files import read_arrays
from edgekd.report.decision import Choice, choices_of, wall_or_engine_ms
from edgekd.report.engine_layers import LayersTable, layers_tables
from edgekd.report.glossary import glossary
from edgekd.report.line import StageLine, stage_line
from edgekd.report.long_runs import energy_text, sustained_text
from edgekd.report.machine_text import environment_sentence, flatten, machine_pairs
from edgekd.report.model import Definition, Report, Row
from edgekd.report.notices import calibration_text, problems, timing_notes
from edgekd.report.pictures import legend
from edgekd.report.pictures_part import PicturesPart, pictures_part
from edgekd.report.speed import with_speeds
from edgekd.report.stage_table import StageRow, headers, stage_chart, stage_rows
from edgekd.report.study_interval import study_interval
from edgekd.report.templates import PAGE, page_environment
from edgekd.report.timelines import LongRunsPart, long_runs_part
from edgekd.report.training import Training
from edgekd.report.units import MISSING, milliseconds, percent, points, scaled, size, utc_time
from edgekd.report.verdict import Finding, QuantizedRow, findings, quantized_rows

MAX_CURVES = 6


@dataclass(frozen=True)
class TrainingRow:
    """One row of the table of trainings, ready to print."""

    name: str
    steps: str
    batch_size: str
    seconds_per_step: str
    total: str
    methods: str


@dataclass(frozen=True)
class Page:
    """Values of the template. Charts are SVG markup, empty when there is nothing to draw."""

    report: Report
    choices: list[Choice]
    line: StageLine
    findings: list[Finding]
    quantized: list[QuantizedRow]
    metrics: list[str]
    definitions: dict[str, Definition]
    stage_figure: str
    scatter: str
    engine_time: str
    wall_time: str
    stage_split: str
    stage_rows: list[StageRow]
    stage_heads: StageRow
    timing_notes: list[str]
    long_runs: LongRunsPart
    layers: list[LayersTable]
    class_figure: str
    class_rows: list[Row]
    precision_figures: dict[str, str]
    confusion: Confusion | None
    ceiling: Row | None
    curves: str
    curve_keys: list[Curve]
    validation: str
    trainings: list[TrainingRow]
    calibration: str
    pictures: PicturesPart
    legend: list[tuple[str, str]]
    boards: dict[str, list[tuple[str, str]]]
    environment: list[tuple[str, str]]
    environment_sentence: str
    runtimes: list[tuple[str, str]]
    created: str
    recipe: str
    problems: list[str]
    task: Task
    min_score: float = MIN_SCORE


def render(report: Report, data_dir: Path) -> str:
    """Return the page of a report as HTML.

    Args:
        report: the report.
        data_dir: folder with `samples.npz`, `pictures.npz` and `confusion.npz`, in the run's folder; the page lists missing
            files.

    Raises:
        ArtifactError: a damaged data file.
        PackageError: jinja2 or matplotlib is not installed.
        UserError: a `study.json` beside the run that cannot be read.
    """
    environment = page_environment(PAGE)
    environment.filters |= {
        "percent": percent, "points": points, "ms": milliseconds, "scaled": scaled, "size": size, "color": charts.color_name,
        "energy": energy_text, "sustained": sustained_text, "wall": wall_or_engine_ms,
    }  # fmt: skip
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = environment.get_template("page.html.j2")
    return template.render(page=_page(report, data_dir), style=style, script=script)


def classes_with_curves(rows: Sequence[Row]) -> list[str]:
    """Return the classes of the precision curves: the MAX_CURVES classes on which the rows differ most."""
    names = list(dict.fromkeys(name for row in rows for name in row.precision_at_recall))

    def spread(name: str) -> float:
        values = [row.per_class.get(name) or 0.0 for row in rows]
        return max(values) - min(values)

    chosen = sorted(names, key=spread, reverse=True)[:MAX_CURVES]
    return [name for name in names if name in chosen]


def shown_metrics(known: Collection[str], task: Task) -> list[str]:
    """Return metric names in the order of the table's columns: primary and secondary metric first."""
    order = dict.fromkeys([task.metric, task.second, *DEFINITIONS, *sorted(known)])
    return [name for name in order if name in known]


def _page(report: Report, data_dir: Path) -> Page:
    samples = read_arrays(data_dir / "samples.npz")
    report = with_speeds(report, samples)
    rows, classes, task = report.rows, report.classes, TASKS[report.task]
    line, choices = stage_line(rows), choices_of(report, samples, data_dir.parent)
    judged = judged_rows(rows, [choice.row for choice in choices if choice.row])
    scored = _one_engine([row for row in judged if row.per_class])
    measured = {name for row in rows for name, value in row.metrics.items() if value is not None}
    engine, wall = _runs(rows, samples, "engine_ns"), _runs(rows, samples, "wall_ns")
    curves = _curves(report.training, "curve")
    return Page(
        report=report, choices=choices, line=line, metrics=shown_metrics(measured, task),
        findings=findings(rows, line, report.training, study_interval(report, data_dir.parent)),
        quantized=quantized_rows(rows), definitions=glossary(report.definitions),
        stage_figure=charts.stage_line_chart(line), scatter=charts.scatter_chart(rows),
        engine_time=charts.latency_chart(engine, "engine time"), wall_time=charts.latency_chart(wall, "wall time"),
        stage_split=stage_chart(rows, report.task), stage_rows=stage_rows(report), stage_heads=headers(report.task),
        timing_notes=timing_notes(rows), class_rows=scored,
        long_runs=long_runs_part(report, data_dir),
        layers=layers_tables(report.layers, {row.id: row.label for row in rows}),
        class_figure=charts.class_chart(scored, classes, task.per_class),
        precision_figures={name: charts.precision_chart(scored, name) for name in classes_with_curves(scored)},
        confusion=_confusion(judged, read_arrays(data_dir / "confusion.npz"), classes),
        ceiling=next((row for row in rows if row.ceiling is not None), None),
        curves=charts.curves_chart(curves), curve_keys=curves,
        validation=charts.validation_chart(_curves(report.training, "validation"), task.title),
        trainings=_trainings(report.training),
        pictures=pictures_part(report, read_arrays(data_dir / "pictures.npz"), judged),
        legend=legend(classes) if classes else [],
        environment=flatten(report.environment), environment_sentence=environment_sentence(report),
        boards={name: machine_pairs(one) for name, one in report.boards.items() if name != LOCAL},
        runtimes=[(row.label, "; ".join(map(": ".join, flatten(row.runtime)))) for row in rows if row.runtime],
        calibration=calibration_text(report), created=utc_time(report.created),
        recipe=json.dumps(report.recipe, indent=2) if report.recipe else "",
        problems=problems(report), task=task,
    )  # fmt: skip


def judged_rows(rows: Sequence[Row], chosen: Sequence[Row]) -> list[Row]:
    """Return the rows of the class charts and the pictures.

    These are the teacher, the students, the engine to deploy, and the quantized engine with the lowest score (worst case).

    Args:
        rows: rows of the report.
        chosen: the engines to deploy, the first board's first.
    """
    trunk = [row for row in rows if row.stage in ("teacher", "student", "distilled") and row.is_measured]
    quantized = sorted(
        (row for row in rows if row.is_quantized and row.score is not None), key=lambda row: row.score or 0
    )
    engines = {row.id: row for row in [*chosen[:1], *quantized[:1]]}
    return [*trunk, *engines.values()]


def _one_engine(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the first engine only: engines of one precision have one colour in a chart."""
    engines = [row for row in rows if row.stage == "engine"]
    return [row for row in rows if row.stage != "engine" or row is engines[0]]


def _confusion(judged: Sequence[Row], matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Confusion | None:
    """Return the confusion of the engine to deploy, or else of the last judged row that has one."""
    engines = [row for row in judged if row.stage == "engine"]
    for row in [*engines, *reversed(judged)]:
        if row.id in matrices:
            return confusion(row.label, matrices[row.id], classes)
    return None


def _runs(rows: Sequence[Row], samples: Mapping[str, np.ndarray], kind: str) -> list[Runs]:
    runs = []
    for row in rows:
        taken = samples.get(f"{row.id}/{kind}")
        if taken is not None:
            runs.append(Runs(row, row.latency_ms if kind == "engine_ns" else row.wall_ms, taken / 1e6))
    return runs


def _curves(training: Mapping[str, Training], kind: Literal["curve", "validation"]) -> list[Curve]:
    curves = []
    for name in charts.TRAINED:
        run = training.get(name, Training())
        points = run.curve if kind == "curve" else run.validation
        shown = [(float(step), value) for step, value in points if value is not None]
        if shown:
            curves.append(Curve(name, name, shown))
    return curves


def _trainings(training: Mapping[str, Training]) -> list[TrainingRow]:
    result = []
    for name in charts.TRAINED:
        run = training.get(name, Training())
        if run.steps is None:
            continue
        pace = run.seconds_per_step
        total = f"{run.steps * pace / 60:.1f}" if pace else MISSING
        paced = f"{pace:.3f}" if pace else MISSING
        methods = [f"{key} × {method.weight:g}" for key, method in run.methods.items()]
        batch = str(run.batch_size or MISSING)
        result.append(TrainingRow(name, str(run.steps), batch, paced, total, ", ".join(["labels", *methods])))
    return result

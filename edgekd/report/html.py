"""The report page: one self-contained HTML file that needs no network, no server and no scripts to be read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.timing import minimum_samples
from edgekd.core.task_metrics import TASKS, Task
from edgekd.data.predictions import MIN_SCORE
from edgekd.errors import ArtifactError, UserError
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.report import charts
from edgekd.report.charts import Curve, Runs, suppressed
from edgekd.report.glossary import Definition, glossary
from edgekd.report.line import StageLine, line_of
from edgekd.report.object_pictures import read_object_pictures
from edgekd.report.pictures import Picture, error_color, legend, read_pictures
from edgekd.report.rows import Row, number, read_rows
from edgekd.report.units import MISSING, milliseconds, percent, points, scaled, size
from edgekd.report.verdict import Finding, findings

SCHEMA = "edgekd.report/1"
_HERE = Path(__file__).parent
MOST_CURVES = 6
_TRAININGS = {"teacher": "Teacher", "student": "Baseline student", "distilled": "Distilled student"}
# Top-level keys the template reads and an early-stopped run may lack.
_OPTIONAL_KEYS = (
    "title",
    "recipe_name",
    "created",
    "seed",
    "recipe_sha256",
    "calibration",
    "repairs",
    "gates",
    "stages",
)


@dataclass(frozen=True)
class Training:
    """Facts of one training run, ready to print."""

    name: str
    steps: str
    batch_size: str
    seconds_per_step: str
    total: str
    methods: str


@dataclass(frozen=True)
class Page:
    """Everything the template prints. Figures are SVG markup, empty when there is nothing to draw."""

    report: Mapping[str, Any]
    rows: list[Row]
    line: StageLine
    findings: list[Finding]
    metrics: list[str]
    definitions: dict[str, Definition]
    stage_figure: str
    scatter: str
    engine_time: str
    wall_time: str
    timing_notes: list[str]
    class_figure: str
    class_rows: list[Row]
    precision_figures: dict[str, str]
    classes: list[str]
    curves: str
    curve_keys: list[Curve]
    validation: str
    trainings: list[Training]
    pictures: list[Picture]
    pictured: list[Row]
    legend: list[tuple[str, str]]
    error_color: tuple[int, int, int]
    environment: list[tuple[str, str]]
    runtimes: list[tuple[str, str]]
    created: str
    recipe: str
    problems: list[str]
    task: Task
    min_score: float = MIN_SCORE


def render(report: Mapping[str, Any], data_dir: Path) -> str:
    """Return the page of a report as HTML.

    Args:
        report: content of `report.json`.
        data_dir: folder with `samples.npz` and `pictures.npz`; what is missing there is named missing on the page.

    Raises:
        ArtifactError: another schema, or a damaged data file.
        UserError: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - the charts import it where they draw
    except ImportError as exc:
        raise UserError(
            f"the report page needs {exc.name}, which is not installed; pip install 'edgekd[report]'"
        ) from exc
    if report.get("schema") != SCHEMA:
        raise ArtifactError(
            f"report schema: expected {SCHEMA}, got {report.get('schema')}; write it again with this edgekd"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "points": points, "ms": milliseconds, "scaled": scaled, "size": size, "color": charts.color_name,
    }  # fmt: skip
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("template.html.j2").render(page=_page(report, data_dir), style=style, script=script)


def told_apart(rows: Sequence[Row]) -> list[str]:
    """Return the classes with precision curves, at most MOST_CURVES: those on which the rows differ most."""
    names = list(dict.fromkeys(name for row in rows for name in row.precision_at_recall))

    def spread(name: str) -> float:
        values = [row.per_class.get(name) or 0.0 for row in rows]
        return max(values) - min(values)

    chosen = sorted(names, key=spread, reverse=True)[:MOST_CURVES]
    return [name for name in names if name in chosen]


def shown_metrics(known: Collection[str], task: Task) -> list[str]:
    """Return the names of metrics in the order of the table's columns: what the task is judged by comes first."""
    order = dict.fromkeys([task.metric, task.second, *DEFINITIONS, *sorted(known)])
    return [name for name in order if name in known]


def _page(report: Mapping[str, Any], data_dir: Path) -> Page:
    rows = read_rows(report.get("rows") or [], report.get("task") or "semantic")
    line = line_of(rows)
    training = report.get("training") or {}
    classes = [str(name) for name in report.get("classes") or []]
    judged = judged_rows(rows)
    known = {name for row in rows for name in row.metrics}
    task = TASKS[str(report.get("task") or "semantic")]
    samples = _arrays(data_dir / "samples.npz")
    engine, wall = _runs(rows, samples, "engine_ns"), _runs(rows, samples, "wall_ns")
    read = read_pictures if report.get("task", "semantic") == "semantic" else read_object_pictures
    pictures = list(read(_arrays(data_dir / "pictures.npz"), judged, classes)) if classes else []
    scored = [row for row in judged if row.per_class]
    curves = _curves(training, "curve")
    return Page(
        report=dict.fromkeys(_OPTIONAL_KEYS) | dict(report), rows=rows, line=line, findings=findings(rows, line, training),
        metrics=shown_metrics(known, task),
        definitions=glossary(report.get("definitions") or {}),
        stage_figure=charts.stage_line_chart(line), scatter=charts.scatter_chart(rows),
        engine_time=charts.latency_chart(engine, "engine time"), wall_time=charts.latency_chart(wall, "wall time"),
        timing_notes=_timing_notes(rows), classes=classes, class_rows=scored,
        class_figure=charts.class_chart(scored, classes, task.per_class),
        precision_figures={name: charts.precision_chart(scored, name) for name in told_apart(scored)},
        curves=charts.curves_chart(curves), curve_keys=curves,
        validation=charts.validation_chart(_curves(training, "validation"), task.title),
        trainings=_trainings(training), pictures=pictures,
        pictured=judged, legend=legend(classes) if classes else [], error_color=error_color(len(classes) or 1),
        environment=flatten(report.get("environment") or {}),
        runtimes=[(row.label, "; ".join(map(": ".join, flatten(row.runtime)))) for row in rows if row.runtime],
        created=_readable_time(str(report.get("created") or "")),
        recipe=json.dumps(report["recipe"], indent=2) if report.get("recipe") else "",
        problems=_problems(report, rows), task=task,
    )  # fmt: skip


def judged_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are compared class by class and in pictures: teacher, both students and one int8 engine.

    The int8 engine is the one with the lowest score, so that the page shows the worst case.
    """
    trunk = [row for row in rows if row.stage in ("teacher", "student", "distilled", "qat") and row.is_measured]
    int8 = [row for row in rows if row.stage == "engine" and row.precision == "int8" and row.score is not None]
    return [*trunk, *sorted(int8, key=lambda row: row.score or 0.0)[:1]]


def flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested data as (dotted key, text) pairs in order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            text = (
                ", ".join(map(str, value))
                if isinstance(value, list | tuple)
                else "not readable"
                if value is None
                else str(value)
            )
            pairs.append((prefix + key, text))
    return pairs


def _readable_time(iso: str) -> str:
    """Return `2026-01-31 12:00 UTC` for an ISO time with that offset; anything else unchanged."""
    return f"{iso[:10]} {iso[11:16]} UTC" if iso.endswith("+00:00") else iso


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path}: damaged ({exc}); run the recipe again to rewrite it") from exc


def _runs(rows: Sequence[Row], samples: Mapping[str, np.ndarray], kind: str) -> list[Runs]:
    runs = []
    for row in rows:
        taken = samples.get(f"{row.id}/{kind}")
        if taken is not None:
            runs.append(Runs(row, row.latency if kind == "engine_ns" else row.wall, taken / 1e6))
    return runs


def _timing_notes(rows: Sequence[Row]) -> list[str]:
    """Return which percentiles were withheld and why, then what the bench itself warns of."""
    notes = []
    for row in rows:
        for what, latency in (("engine time", row.latency), ("wall time", row.wall)):
            for name in suppressed(latency):
                needed, has = minimum_samples(float(name[1:])), latency.n if latency else 0
                notes.append(f"{row.label}, {what}: {name} is withheld, it needs {needed} runs and has {has}")
    return notes + [f"{row.label}: {warning}" for row in rows for warning in row.warnings]


def _curves(training: Mapping[str, Any], kind: str) -> list[Curve]:
    return [
        Curve(title, name, [(float(step), float(value)) for step, value in run[kind]])
        for name, title in _TRAININGS.items()
        if (run := training.get(name)) and run.get(kind)
    ]


def _trainings(training: Mapping[str, Any]) -> list[Training]:
    result = []
    for name, title in _TRAININGS.items():
        run = training.get(name) or {}
        steps, pace = number(run.get("steps")), number(run.get("seconds_per_step"))
        if steps is not None:
            total = f"{steps * pace / 60:.1f} min" if pace else MISSING
            batch = str(run.get("batch_size") or MISSING)
            methods = [f"{key} × {method['weight']:g}" for key, method in (run.get("methods") or {}).items()]
            paced = f"{pace:.3f} s" if pace else MISSING
            result.append(Training(title, f"{steps:.0f}", batch, paced, total, ", ".join(["labels", *methods])))
    return result


def _problems(report: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Return what keeps the page from being complete, for the notice at its top."""
    problems = [f"The run ended early: {report['failure']}"] if report.get("failure") else []
    problems += [
        f"Gate failed: {gate['name']}: {gate['text']}" for gate in report.get("gates") or [] if not gate["passed"]
    ]
    open_rows = [row.label for row in rows if not row.is_measured]
    if open_rows:
        problems.append(f"Not measured: {', '.join(open_rows)}. The reasons are in the table.")
    return problems + _uneven_means(rows)


def _uneven_means(rows: Sequence[Row]) -> list[str]:
    """Return which classes count in the means of some rows alone: no label is of them, and these rows saw them all the same."""
    scored = [row for row in rows if row.is_measured and row.task == "semantic"]
    found = []
    for name in dict.fromkeys(name for row in scored for name in row.per_class):
        seen = [row.label for row in scored if row.per_class.get(name) is not None]
        if seen and len(seen) < len(scored):
            found.append(
                f"Means over different classes: no label is of class {name}, and {', '.join(seen)} took pixels for it, which "
                "counts as 0 % there and not in the other rows. Compare the classes."
            )
    return found

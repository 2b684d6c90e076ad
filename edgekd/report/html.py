"""The report page: one self-contained HTML file that needs no network, no server and no scripts to be read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.board.installation import install
from edgekd.board.timing import minimum_samples
from edgekd.core.recipe import LOCAL
from edgekd.core.task_metrics import TASKS, Task
from edgekd.data.predictions import MIN_SCORE
from edgekd.errors import ArtifactError, PackageError
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.report import charts
from edgekd.report.charts import Curve, Runs, suppressed
from edgekd.report.glossary import glossary
from edgekd.report.line import StageLine, stage_line
from edgekd.report.long_runs import energy_text, sustained_text
from edgekd.report.model import STAGE_LABELS, BoardMachine, Definition, Report, Row, Training
from edgekd.report.object_pictures import read_object_pictures
from edgekd.report.part import Json
from edgekd.report.pictures import Picture, error_color, legend, read_pictures
from edgekd.report.stage_table import StageRow, headers, stage_chart, stage_rows
from edgekd.report.timelines import LongRunsPart, long_runs_part
from edgekd.report.units import MISSING, milliseconds, percent, points, scaled, size
from edgekd.report.verdict import Finding, findings

_HERE = Path(__file__).parent
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
    """Everything that the template prints. Figures are SVG markup, empty when there is nothing to draw."""

    report: Report
    line: StageLine
    findings: list[Finding]
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
    class_figure: str
    class_rows: list[Row]
    precision_figures: dict[str, str]
    ceiling: Row | None
    curves: str
    curve_keys: list[Curve]
    validation: str
    trainings: list[TrainingRow]
    calibration: str
    pictures: list[Picture]
    pictured: list[Row]
    legend: list[tuple[str, str]]
    error_color: tuple[int, int, int]
    boards: dict[str, list[tuple[str, str]]]
    environment: list[tuple[str, str]]
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
        data_dir: folder with `samples.npz` and `pictures.npz`; the page names a missing file as missing.

    Raises:
        ArtifactError: a damaged data file.
        PackageError: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - the charts import it where they draw
    except ImportError as exc:
        raise PackageError(f"the report page needs {exc.name}, which is not installed; {install('report')}") from exc
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "points": points, "ms": milliseconds, "scaled": scaled, "size": size, "color": charts.color_name,
        "energy": energy_text, "sustained": sustained_text,
    }  # fmt: skip
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("template.html.j2").render(page=_page(report, data_dir), style=style, script=script)


def classes_with_curves(rows: Sequence[Row]) -> list[str]:
    """Return the classes whose precision curves are drawn: the MAX_CURVES on which the rows differ most."""
    names = list(dict.fromkeys(name for row in rows for name in row.precision_at_recall))

    def spread(name: str) -> float:
        values = [row.per_class.get(name) or 0.0 for row in rows]
        return max(values) - min(values)

    chosen = sorted(names, key=spread, reverse=True)[:MAX_CURVES]
    return [name for name in names if name in chosen]


def shown_metrics(known: Collection[str], task: Task) -> list[str]:
    """Return the names of metrics in the order of the table's columns: primary and secondary metric first."""
    order = dict.fromkeys([task.metric, task.second, *DEFINITIONS, *sorted(known)])
    return [name for name in order if name in known]


def _page(report: Report, data_dir: Path) -> Page:
    rows, classes, task = report.rows, report.classes, TASKS[report.task]
    line = stage_line(rows)
    judged = judged_rows(rows)
    scored = [row for row in judged if row.per_class]
    measured = {name for row in rows for name, value in row.metrics.items() if value is not None}
    samples = _arrays(data_dir / "samples.npz")
    engine, wall = _runs(rows, samples, "engine_ns"), _runs(rows, samples, "wall_ns")
    read = read_pictures if report.task == "semantic" else read_object_pictures
    pictures = list(read(_arrays(data_dir / "pictures.npz"), judged, classes)) if classes else []
    curves = _curves(report.training, "curve")
    return Page(
        report=report, line=line, findings=findings(rows, line, report.training), metrics=shown_metrics(measured, task),
        definitions=glossary(report.definitions),
        stage_figure=charts.stage_line_chart(line), scatter=charts.scatter_chart(rows),
        engine_time=charts.latency_chart(engine, "engine time"), wall_time=charts.latency_chart(wall, "wall time"),
        stage_split=stage_chart(rows, report.task), stage_rows=stage_rows(report), stage_heads=headers(report.task),
        timing_notes=_timing_notes(rows), class_rows=scored,
        long_runs=long_runs_part(report, data_dir),
        class_figure=charts.class_chart(scored, classes, task.per_class),
        precision_figures={name: charts.precision_chart(scored, name) for name in classes_with_curves(scored)},
        ceiling=next((row for row in rows if row.ceiling is not None), None),
        curves=charts.curves_chart(curves), curve_keys=curves,
        validation=charts.validation_chart(_curves(report.training, "validation"), task.title),
        trainings=_trainings(report.training), pictures=pictures,
        pictured=judged, legend=legend(classes) if classes else [], error_color=error_color(len(classes) or 1),
        environment=flatten(report.environment),
        boards={name: _machine(one) for name, one in report.boards.items() if name != LOCAL},
        runtimes=[(row.label, "; ".join(map(": ".join, flatten(row.runtime)))) for row in rows if row.runtime],
        calibration=_calibration(report), created=_readable_time(report.created),
        recipe=json.dumps(report.recipe, indent=2) if report.recipe else "",
        problems=_problems(report), task=task,
    )  # fmt: skip


def judged_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the class charts and the pictures: teacher, students, and the quantized engine with the lowest score.

    The page shows the worst case.
    """
    trunk = [row for row in rows if row.stage in ("teacher", "student", "distilled", "qat") and row.is_measured]
    quantized = [row for row in rows if row.is_quantized and row.score is not None]
    return [*trunk, *sorted(quantized, key=lambda row: row.score or 0.0)[:1]]


def flatten(data: Json, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested data as (dotted key, text) pairs in order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
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


def _machine(board: BoardMachine) -> list[tuple[str, str]]:
    """Return what the page says of a board's machine, as (name, text) pairs; its runtimes are those that are installed."""
    runtimes = {name: version for name, version in board.runtimes.items() if version is not None}
    return flatten({**(board.environment or board.hardware), **board.use, "runtimes": runtimes})


def _calibration(report: Report) -> str:
    """Return the images of the int8 calibration in words; "" without one. Each quantized model can have another number."""
    found = [row.calibration for row in report.rows if row.calibration]
    found = found or ([report.calibration] if report.calibration else [])
    if not found:
        return ""
    counts = sorted({one.count for one in found})
    images = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"{images} images of the split “{found[0].split}”"


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
            runs.append(Runs(row, row.latency_ms if kind == "engine_ns" else row.wall_ms, taken / 1e6))
    return runs


def _timing_notes(rows: Sequence[Row]) -> list[str]:
    """Return the withheld percentiles with their reason, then the warnings of the bench."""
    notes = []
    for row in rows:
        for what, latency in (("engine time", row.latency_ms), ("wall time", row.wall_ms)):
            for name in suppressed(latency):
                needed, has = minimum_samples(float(name[1:])), latency.n if latency else 0
                notes.append(f"{row.label}, {what}: {name} is withheld, it needs {needed} runs and has {has}")
    return notes + [f"{row.label}: {warning}" for row in rows for warning in row.warnings]


def _curves(training: Mapping[str, Training], kind: Literal["curve", "validation"]) -> list[Curve]:
    curves = []
    for name in charts.TRAINED:
        run = training.get(name, Training())
        points = run.curve if kind == "curve" else run.validation
        shown = [(float(step), value) for step, value in points if value is not None]
        if shown:
            curves.append(Curve(STAGE_LABELS[name], name, shown))
    return curves


def _trainings(training: Mapping[str, Training]) -> list[TrainingRow]:
    result = []
    for name in charts.TRAINED:
        run = training.get(name, Training())
        if run.steps is None:
            continue
        pace = run.seconds_per_step
        total = f"{run.steps * pace / 60:.1f} min" if pace else MISSING
        paced = f"{pace:.3f} s" if pace else MISSING
        methods = [f"{key} × {method.weight:g}" for key, method in run.methods.items()]
        batch = str(run.batch_size or MISSING)
        result.append(
            TrainingRow(STAGE_LABELS[name], str(run.steps), batch, paced, total, ", ".join(["labels", *methods]))
        )
    return result


def _problems(report: Report) -> list[str]:
    """Return the reasons why the page is not complete, for the notice at its top."""
    problems = [f"The run ended early: {report.failure}"] if report.failure else []
    problems += [f"Gate failed: {gate.name}: {gate.text}" for gate in report.gates if not gate.passed]
    for status in ("failed", "not measured"):
        if labels := [row.label for row in report.rows if row.status == status]:
            problems.append(f"{status.capitalize()}: {', '.join(labels)}. The reasons are in the table.")
    problems += [
        f"{STAGE_LABELS[name]}: the task loss was exactly 0 in {run.zero_loss_steps} of {run.steps} steps, which taught nothing."
        for name, run in report.training.items()
        if run.zero_loss_steps and name in STAGE_LABELS
    ]
    return problems + _uneven_means(report.rows)


def _uneven_means(rows: Sequence[Row]) -> list[str]:
    """Return a line for each class that is in the means of only some rows: no label has it, and only these rows predict it."""
    scored = [row for row in rows if row.is_measured and row.task == "semantic"]
    problems = []
    for name in dict.fromkeys(name for row in scored for name in row.per_class):
        seen = [row.label for row in scored if row.per_class.get(name) is not None]
        if seen and len(seen) < len(scored):
            problems.append(
                f"Means over different classes: no label is of class {name}, and {', '.join(seen)} took pixels for it, which "
                "counts as 0 % there and not in the other rows. Compare the classes."
            )
    return problems

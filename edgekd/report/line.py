"""Score from stage to stage (teacher, student, distilled, export, engines), and the step with the largest loss.

Students of section `qat` branch off: the control from the deployed student, and its engines from it. An engine of QAT is
compared with the same engine of the control, never with the deployed student's: that difference is also what more training gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.board.precision import REFERENCES, Precision
from edgekd.report.model import Row
from edgekd.report.units import points

_NAMES = {
    "student": "capacity gap",
    "distilled": "distillation",
    "onnx": "export",
}
_TRUNK = ("teacher", "student", "distilled", "onnx")
# Stages of the trunk that may be absent without a gap in the line.
_OPTIONAL = {"teacher", "distilled"}
FURTHER, QAT = "further training", "quantization-aware training"


@dataclass(frozen=True)
class Step:
    """One step of the line: `delta` is score(row) - score(source), a fraction; None without both scores.

    `name` joins the names of all stages between source and row when some of them are not measured.
    """

    name: str
    source: Row | None
    row: Row
    delta: float | None

    @property
    def is_deployment(self) -> bool:
        """Whether the step comes after training: export, compilation or quantization."""
        return self.row.stage in ("onnx", "engine")


@dataclass(frozen=True)
class StageLine:
    """All steps in order: the trunk, then the branch of each target; the first measured row is a step without source."""

    steps: tuple[Step, ...]

    @property
    def largest_loss(self) -> Step | None:
        """The step with the most negative delta; None when no step lost anything."""
        return _worst(self.steps)

    @property
    def largest_deployment_loss(self) -> Step | None:
        """The step with the most negative delta among export, compilation and quantization."""
        return _worst([step for step in self.steps if step.is_deployment])

    @property
    def sentence(self) -> str:
        """One or two plain sentences that name the largest loss."""
        if not any(step.delta is not None for step in self.steps):
            return "Fewer than two steps have a measured score, so the report cannot say where accuracy is lost."
        worst = self.largest_loss
        if worst is None:
            return f"No step loses {self.steps[-1].row.score_title}."
        return f"Largest loss: {worst.name}, {self.loss}"

    @property
    def loss(self) -> str:
        """Size of the largest loss, and the largest loss after training, e.g. for a text below its name; "" without any."""
        worst, deployed = self.largest_loss, self.largest_deployment_loss
        if worst is None:
            return ""
        text = f"{_describe(worst)}."
        if worst.is_deployment:
            return text
        if deployed is not None:
            return f"{text} After training: {deployed.name}, {_describe(deployed)}."
        if any(step.is_deployment and step.delta is not None for step in self.steps):
            return f"{text} No loss after training."
        return text


def stage_line(rows: Sequence[Row]) -> StageLine:
    """Return the stage line of a report's rows.

    The trunk is teacher, student, distilled student, ONNX. From its end each (target, board) branches. The branch compares its
    reference (`reference_of`), and every other engine of that precision, with the trunk, and the engines of lower precision with
    the reference. The students that section `qat` trains, and their engines, follow at the end.
    """
    steps: list[Step] = []
    source: Row | None = None
    skipped: list[str] = []
    for stage in _TRUNK:
        row = next((row for row in rows if row.stage == stage), None)
        if row is None:
            if stage not in _OPTIONAL and source is not None:
                skipped.append(_NAMES[stage])
            continue
        source, skipped = _extend(steps, row, _NAMES.get(stage, ""), source, skipped)
    for branch in dict.fromkeys(row.branch for row in rows if row.stage == "engine"):
        engines = [row for row in rows if row.stage == "engine" and row.branch == branch and row.student == "deployed"]
        _branch(steps, engines, reference_of(rows, branch), source, skipped)
    _further(steps, rows)
    return StageLine(tuple(steps))


def reference_of(rows: Sequence[Row], branch: tuple[str, str]) -> Row | None:
    """Return the engine with which the others of a (target, board) are compared: its first fp32 engine, else its first fp16.

    Among engines of one precision it is the first measured one, if any.
    """
    engines = [
        row
        for row in rows
        if row.stage == "engine" and row.branch == branch and row.precision in REFERENCES and row.student == "deployed"
    ]
    return min(engines, key=lambda row: (REFERENCES.index(Precision(row.precision)), not row.is_measured), default=None)


def _branch(
    steps: list[Step], engines: list[Row], reference: Row | None, trunk: Row | None, skipped: list[str]
) -> None:
    source, before = trunk, [*skipped, "compilation"]
    if reference is not None:
        source, before = _extend(steps, reference, _compilation(reference), trunk, skipped)
    for row in engines:
        if row is reference:
            continue
        if reference is not None and row.precision == reference.precision:
            _extend(steps, row, _compilation(row), trunk, skipped)
        else:
            kind = "quantization" if row.is_quantized else "reduced precision"
            _extend(steps, row, f"{row.precision} {kind}", source, before)


def float_student(rows: Sequence[Row], student: str) -> Row | None:
    """Return the float network that an engine's quantization is held to; of QAT the control's, where there is one.

    Args:
        rows: rows of the report.
        student: `student` of the engine's row.
    """
    order = {"qat": ("control", "distilled", "student"), "control": ("control",)}.get(student, ("distilled", "student"))
    by_stage = {row.stage: row for row in rows if row.stage in order and row.score is not None}
    return next((by_stage[stage] for stage in order if stage in by_stage), None)


def _further(steps: list[Step], rows: Sequence[Row]) -> None:
    """Append the steps of the students that section `qat` trains, and of their engines."""
    deployed, control = float_student(rows, "deployed"), float_student(rows, "control")
    by_id = {row.id: row for row in rows}
    for row in rows:
        if row.stage == "control":
            _extend(steps, row, FURTHER, deployed, [])
        elif row.stage == "qat":
            _extend(steps, row, QAT, control or deployed, [] if control else [FURTHER])
        elif row.stage == "engine" and row.student == "control":
            _extend(steps, row, f"{row.precision} quantization", control or deployed, [] if control else [FURTHER])
        elif row.stage == "engine" and row.student == "qat":
            twin = by_id.get(row.gain.against) if row.gain else None
            if twin is not None and twin.student == "control" and twin.score is not None:
                _extend(steps, row, QAT, twin, [])
            else:
                _extend(steps, row, f"{row.precision} quantization", deployed, [FURTHER, QAT])


def _compilation(row: Row) -> str:
    return "compilation" if row.precision == "fp32" else f"compilation in {row.precision}"


def _extend(
    steps: list[Step], row: Row, name: str, source: Row | None, skipped: list[str]
) -> tuple[Row | None, list[str]]:
    """Append the step to `row`; return the source and the skipped names for the step after it."""
    names = [*skipped, name] if name else skipped
    if row.score is None:
        steps.append(Step(" and ".join(names), source, row, None))
        return source, names if source is not None else []
    first = source is None
    delta = None if source is None or source.score is None else row.score - source.score
    steps.append(Step("" if first else " and ".join(names), source, row, delta))
    return row, []


def _worst(steps: Sequence[Step]) -> Step | None:
    lossy = [step for step in steps if step.delta is not None and step.delta < 0]
    return min(lossy, key=lambda step: step.delta or 0.0, default=None)


def _describe(step: Step) -> str:
    assert step.source is not None
    label = step.source.label, step.row.label
    digits = 1 if abs(step.delta or 0.0) >= 0.001 else 3
    return f"{label[0]} → {label[1]}: {points(step.delta, digits)} points {step.row.score_title}"

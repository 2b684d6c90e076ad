"""The line teacher -> baseline -> distilled -> export -> engines, step by step, and the step that lost most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.report.rows import Row, read_rows, reference_of
from edgekd.report.units import points

_NAMES = {
    "student": "capacity gap",
    "distilled": "distillation gain",
    "qat": "quantization-aware training",
    "onnx": "export",
}
_TRUNK = ("teacher", "student", "distilled", "qat", "onnx")
# A stage of the trunk that a report may lack without a gap in the line.
_OPTIONAL = {"teacher", "distilled", "qat"}


@dataclass(frozen=True)
class Step:
    """One step of the line: `delta` is score(row) - score(source), a fraction; None where one of them was not measured.

    `name` joins the names of all stages between source and row when some of them carry no measurement.
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
    """All steps in order, trunk first, then each target's branch; the first measured row is a step without source."""

    steps: tuple[Step, ...]

    @property
    def largest_loss(self) -> Step | None:
        """The step with the most negative delta; None when no step lost anything."""
        return _worst(self.steps)

    @property
    def largest_deployment_loss(self) -> Step | None:
        """The same among export, compilation and quantization."""
        return _worst([step for step in self.steps if step.is_deployment])

    @property
    def sentence(self) -> str:
        """One or two plain sentences that name the largest loss."""
        if not any(step.delta is not None for step in self.steps):
            return "No two stages of the line have a measured score yet, so no loss can be attributed."
        worst, deployed = self.largest_loss, self.largest_deployment_loss
        if worst is None:
            return f"No step of the line lost {self.steps[-1].row.score_title}."
        text = f"The step that loses most is {_describe(worst)}."
        if worst.is_deployment:
            return text
        if deployed is not None:
            return f"{text} After training, the largest loss is {_describe(deployed)}."
        if any(step.is_deployment and step.delta is not None for step in self.steps):
            return f"{text} Nothing is lost after training."
        return text


def stage_line(rows: Sequence[Mapping[str, Any]]) -> StageLine:
    """Return the stage line of `report["rows"]`.

    The trunk is teacher, baseline student, distilled student, (QAT student,) ONNX. From its end each (target, board)
    branches: its fp32 engine (`reference_of`), then every engine of lower precision compared with that one.
    """
    return line_of(read_rows(rows))


def line_of(rows: Sequence[Row]) -> StageLine:
    """Return the stage line of rows that are already read."""
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
    for place in dict.fromkeys(row.place for row in rows if row.stage == "engine"):
        engines = [row for row in rows if row.stage == "engine" and row.place == place]
        _branch(steps, engines, reference_of(rows, place), source, skipped)
    return StageLine(tuple(steps))


def _branch(
    steps: list[Step], engines: list[Row], reference: Row | None, source: Row | None, skipped: list[str]
) -> None:
    if reference is not None:
        name = "compilation" if reference.precision == "fp32" else f"compilation in {reference.precision}"
        source, skipped = _extend(steps, reference, name, source, skipped)
    else:
        skipped = [*skipped, "compilation"]
    for row in engines:
        if row is not reference:
            kind = "quantization" if "int" in row.precision else "reduced precision"
            _extend(steps, row, f"{row.precision} {kind}", source, skipped)


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
    return f"the {step.name} ({label[0]} → {label[1]}): {points(step.delta, digits)} points {step.row.score_title}"

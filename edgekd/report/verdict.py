"""The verdict of a report: gain of distillation, size against the teacher, largest loss; cost and gain of quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.report.line import StageLine, float_student, reference_of
from edgekd.report.model import Row
from edgekd.report.speed import speed_text, speed_verdict
from edgekd.report.study_interval import StudyInterval
from edgekd.report.training import Training
from edgekd.report.units import MISSING, percent, points, ratio, scaled

# MLPerf Inference accepts a quantized network with 99 % of the fp32 quality.
GOOD_SHARE = 0.99


@dataclass(frozen=True)
class Finding:
    """One statement of the verdict. `tone` is good, bad, plain, or unknown where it was not measured."""

    tone: str
    headline: str
    text: str


@dataclass(frozen=True)
class Cell:
    """One judged value; `tone` as of a finding."""

    tone: str
    text: str


@dataclass(frozen=True)
class QuantizedRow:
    """Cost and gain of one quantized engine against its reference: kept score, speed, how many times smaller, a note."""

    row: Row
    compared: str
    score: Cell
    speed: Cell
    smaller: str
    note: str


def findings(
    rows: Sequence[Row], line: StageLine, training: Mapping[str, Training], study: StudyInterval | None = None
) -> list[Finding]:
    """Return the verdict in words: distillation, size against the teacher, largest loss.

    Args:
        rows: rows of the report.
        line: the stage line of these rows.
        training: training of the report.
        study: gain of distillation over several seeds; without it one seed decides nothing.
    """
    by_stage = {row.stage: row for row in reversed(rows) if row.stage != "engine"}
    result = [_distillation(by_stage.get("student"), by_stage.get("distilled"), training, study)]
    compact = _compactness(by_stage.get("teacher"), by_stage.get("distilled") or by_stage.get("student"))
    gain = _further_training(rows, training.get("qat"))
    return [*result, *([gain] if gain else []), *([compact] if compact else []), _losses(line)]


def _further_training(rows: Sequence[Row], trained: Training | None) -> Finding | None:
    """Return what quantization-aware training gains over its control, None without section `qat`."""
    if trained is not None and trained.steps is None:
        text = "Student and control keep the weights of the deployed student."
        text += f" Budget: {trained.budget}." if trained.budget else ""
        return Finding("plain", "Quantization-aware training: not needed", text)
    found = [row for row in rows if row.student == "qat" and row.stage == "engine"]
    if not found:
        return None
    by_id, title = {row.id: row for row in rows}, found[0].score_title
    lines = [f"Budget: {trained.budget}."] if trained is not None and trained.budget else []
    measured = []
    for row in found:
        twin = by_id.get(row.gain.against) if row.gain else None
        if missing := _missing(row.label, row) or (_missing(twin.label, twin) if twin else ""):
            lines.append(missing)
        elif row.gain is None or twin is None or row.gain.change is None:
            lines.append(f"{row.label}: {percent(row.score)} %, and no control to compare it with.")
        else:
            measured.append(row)
            lines.append(f"{twin.label} {percent(twin.score)} → {row.label} {percent(row.score)} %, {row.gain.text}.")
    reference = float_student(rows, "qat")
    if reference is not None and reference.stage == "control":
        lines.append(
            f"The control trained the same steps without quantizers; in float it has {percent(reference.score)} %."
        )
    if not measured:
        return Finding("unknown", "Quantization-aware training: not compared with a control", " ".join(lines))
    lines.append("One seed does not show whether it helps; edgekd study trains several.")
    gains = sorted((row.gain for row in measured if row.gain), key=lambda gain: gain.change or 0.0)
    shown = "good" if all(gain.is_better for gain in gains) else "unknown"
    least, most, which = points(gains[0].change), points(gains[-1].change), f"({measured[0].label})"
    if len(gains) > 1:
        least, which = f"{least} to {most}", f"on {len(gains)} engines"
    headline = f"Quantization-aware training: {least} points {title} over its control {which}"
    return Finding(shown, headline, " ".join(lines))


def _losses(line: StageLine) -> Finding:
    known = any(step.delta is not None for step in line.steps)
    worst = line.largest_loss
    where = f", {worst.row.label}" if worst and worst.row.stage == "engine" else ""
    headline = "Accuracy losses: not measured"
    if worst or known:
        headline = (
            f"Largest accuracy loss: {worst.name}{where}"
            if worst
            else f"No step loses {line.steps[-1].row.score_title}"
        )
    return Finding("plain" if known else "unknown", headline, line.loss or line.sentence)


def _distillation(
    student: Row | None, distilled: Row | None, training: Mapping[str, Training], study: StudyInterval | None
) -> Finding:
    missing = _missing("student", student) or _missing("distilled", distilled)
    if missing or student is None or distilled is None or student.score is None or distilled.score is None:
        if study is not None:
            return _studied(study, distilled or student, missing)
        return Finding("unknown", "Distillation: not measured", missing)
    gain = distilled.score - student.score
    budget, is_equal = _budget(training)
    title, second = student.score_title, student.second_title
    text = f"{title} {percent(student.score)} → {percent(distilled.score)} % ({points(gain)} points)"
    if student.second is not None and distilled.second is not None:
        edge = distilled.second - student.second
        text += f", {second} {percent(student.second)} → {percent(distilled.second)} % ({points(edge)} points)"
    text += f", {_images(student, distilled)}. {budget}"
    if is_equal is False:
        return Finding("bad", f"Distillation is not compared at equal budget ({points(gain)} points {title})", text)
    if study is not None:
        return _studied(study, distilled, f"This run: {text}")
    headline = f"Distillation: {points(gain)} points {title} on one seed"
    return Finding(
        "unknown", headline, f"{text} One seed does not show whether distillation helps; edgekd study trains several."
    )


def _studied(study: StudyInterval, row: Row | None, text: str) -> Finding:
    """Return the finding of a study; `row` names the metric, `text` says what this run shows."""
    title = row.score_title if row else "of the primary metric"
    headline = (
        f"Distillation: {points(study.mean)} points {title} "
        f"({points(study.low)} to {points(study.high)}, {study.seeds} seeds)"
    )
    tone = "good" if study.low > 0 else "bad" if study.high < 0 else "unknown"
    decided = "" if tone != "unknown" else " The interval includes 0: no measurable difference."
    return Finding(tone, headline, f"95 % interval of the study's mean.{decided} {text}")


def _budget(training: Mapping[str, Training]) -> tuple[str, bool | None]:
    """Return a sentence about both students' budgets, and whether they are equal (None: not recorded)."""
    runs = [training.get(name, Training()) for name in ("student", "distilled")]
    budgets = [(run.steps, run.batch_size) for run in runs]
    if any(None in budget for budget in budgets):
        return "The training budgets are not recorded in this report.", None
    (steps, batch), other = budgets
    if budgets[0] == other:
        return f"Both students trained {steps} steps of {batch} images.", True
    return (
        f"The budgets differ: student {steps} steps of {batch} images, distilled {other[0]} of {other[1]}, "
        "so the comparison is not fair."
    ), False


def _images(*rows: Row) -> str:
    counts = {row.num_images for row in rows}
    if len(counts) > 1:
        return "measured on different numbers of images (" + " and ".join(str(row.num_images) for row in rows) + ")"
    count = counts.pop()
    return f"on {count} images" if count else "on an unrecorded number of images"


def quantized_rows(rows: Sequence[Row]) -> list[QuantizedRow]:
    """Return what quantization costs and gains, for each quantized engine in the report's order."""
    return [_quantized(row, reference_of(rows, row.branch), _float_of(rows, row)) for row in rows if row.is_quantized]


def _float_of(rows: Sequence[Row], row: Row) -> Row | None:
    """Return the float network that the score of a quantized engine is held to, None for the engine that its speed is."""
    return None if row.student == "deployed" else float_student(rows, row.student)


def _quantized(row: Row, reference: Row | None, network: Row | None) -> QuantizedRow:
    compared = reference.label if reference else f"fp32 or fp16 engine of {row.runtime_label}"
    missing = _missing(row.label, row) or _missing(compared, reference)
    score = _kept_score(row, network or reference, of=f" of {network.label}" if network else "")
    if missing or reference is None:
        return QuantizedRow(row, compared, score, Cell("unknown", MISSING), MISSING, missing)
    smaller = ratio(reference.size_bytes / row.size_bytes) if row.size_bytes and reference.size_bytes else MISSING
    return QuantizedRow(row, compared, score, _speed(row, reference), smaller, _note(row, reference))


def _kept_score(row: Row, base: Row | None, of: str) -> Cell:
    """Return the share of a float network's score that an engine keeps; `of` names the network where the table does not."""
    if base is None or not (row.is_measured and base.is_measured) or row.score is None or not base.score:
        return Cell("unknown", MISSING)
    share = row.score / base.score
    text = f"{points(row.score - base.score)} points, {percent(share)} % kept{of}"
    return Cell("good" if share >= GOOD_SHARE else "bad", text)


def _speed(row: Row, reference: Row) -> Cell:
    """Return the speed in words, coloured if `speed_verdict` is faster or slower."""
    if row.speed is not None:
        tones = {"faster": "good", "slower": "bad"}
        return Cell(
            tones.get(speed_verdict(row.speed, row, reference), "unknown"), speed_text(row.speed, row, reference)
        )
    if row.p50_ms and reference.p50_ms:
        return Cell(
            "unknown", f"not decided, no interval was recorded ({ratio(reference.p50_ms / row.p50_ms)} the speed)"
        )
    return Cell("unknown", "not measured")


def _note(row: Row, reference: Row) -> str:
    counts = {one.num_images for one in (row, reference) if one.score is not None}
    notes = [_images(reference, row)] if len(counts) > 1 else []
    return "; ".join([*notes, *([row.budget.text] if row.budget else [])])


def _compactness(teacher: Row | None, student: Row | None) -> Finding | None:
    if teacher is None or student is None or not teacher.score or student.score is None:
        return None
    text = f"{student.label} {percent(student.score)} %, teacher {percent(teacher.score)} % {student.score_title}."
    headline = f"The student keeps {percent(student.score / teacher.score)} % of the teacher's {student.score_title}"
    if teacher.params and student.params:
        headline += f" with {ratio(teacher.params / student.params)} fewer parameters"
        text += f" Parameters: {scaled(student.params).strip()} against {scaled(teacher.params).strip()}."
    if teacher.macs and student.macs:
        text += f" Multiply-adds: {scaled(student.macs).strip()} against {scaled(teacher.macs).strip()}."
    return Finding("plain", headline, text)


def _missing(name: str, row: Row | None) -> str:
    """Return why a row cannot be used; empty when it can."""
    if row is None:
        return f"This run has no {name}."
    if not row.is_measured:
        return f"{name}: {row.status}" + (f" ({row.reason})." if row.reason else ".")
    return ""
